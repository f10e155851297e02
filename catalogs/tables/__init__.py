"""Tables of objects as others write them: formats, names of columns, units, ids, absent values, cuts."""
