"""A catalogue against its truth: matching, leaks, requirements of surveys, tomographic bins, report card."""
