"""Tables of redshifts as others write them: formats, names of columns, quality cuts, absent values."""
