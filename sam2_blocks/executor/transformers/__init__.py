"""Detectors of the ``transformers`` library: of fixed classes, and of what phrases say.

`loading` makes a `detector` or a `grounder` of a name; both run a `network`. `library` imports the
package, and `omdet` stands in for the one processor that needs compiled operators.
"""
