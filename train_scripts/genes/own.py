"""Rank genes for the patients of the user."""


def analyse(config, workdir, *, progress):
    raise NotImplementedError
