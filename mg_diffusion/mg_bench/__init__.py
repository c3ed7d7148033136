"""MG-Bench, `mg-diffusion bench`: how well a model is controlled, by `mg_diffusion.evaluation`. Needs the extra `eval`.

What things cost, and how other methods fare, is measured by the commands of `benchmarks/`, outside the package.
"""
