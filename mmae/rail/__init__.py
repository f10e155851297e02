"""Stages for RAIL, LSST DESC's pipelines of redshifts: p(z) of a store or a catalogue by id.

RAIL finds them as `rail.estimation.algos.mmae` and `rail.mmae`, where the distribution puts namespace.py and
package.py.
"""
