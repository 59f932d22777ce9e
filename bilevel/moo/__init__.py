"""Several objectives with one shared encoder, without conflicts; any torch model, torch alone, never sees audio.

`weighting` says what a weighting is and builds one by name, `collector` finds the gradients, `levels` puts objectives
into an ordered list of levels. `normalise`, `layers` and `conflict` are options of it. `cone`, `simplex` and
`surgery` are what several weightings share; every other module is one weighting.
"""

from bilevel.moo.weighting import ObjectiveWeighting, build, names

__all__ = ["ObjectiveWeighting", "build", "names"]
