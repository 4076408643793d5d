"""How files are written: whole or not at all, one a picture, and by one writer at a time.

`atomic` writes whole files, `json_lines` files that grow, `claims` sees that no two blocks write
one, `per_picture` fills names into paths, and `reading` reads what others wrote.
"""
