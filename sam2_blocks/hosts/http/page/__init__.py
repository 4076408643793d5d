"""The page on which people click masks: ``static`` is what a browser gets, without a build step.

`routes` serves it, `folder` has the pictures to choose from and what is saved of them, `brought`
those that people bring, `exports` writes what is saved in the formats of others, and `guard` keeps
the pages of other sites out.
"""
