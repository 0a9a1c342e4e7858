"""Which packages a new model needs, in the versions that are installed here or else that Ekiben asks for."""

from importlib import metadata

from ekiben.scaffold import Framework

_BENTO = {
    Framework.SKLEARN: ("httptools", "numpy", "scikit-learn", "skops", "uvloop"),
    Framework.TORCH: ("httptools", "numpy", "safetensors", "torch", "uvloop"),
}
_TRAINING = {
    Framework.SKLEARN: ("scikit-learn", "skops", "pytest"),
    Framework.TORCH: ("safetensors", "scikit-learn", "torch", "pytest"),
}


def of_bento(framework: Framework) -> list[str]:
    """The requirements of the model's service."""
    return [_requirement(package) for package in _BENTO[framework]]


def missing(framework: Framework) -> list[str]:
    """The requirements that training and testing the model has beyond what is installed."""
    return [_requirement(package) for package in _TRAINING[framework] if not _installed(package)]


def _requirement(package: str) -> str:
    version = _installed(package)
    # 2.13.0+cpu and 2.13.0+cu130 are one version, built for different machines.
    return f"{package}=={version.partition('+')[0]}" if version else _asked(package)


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _asked(package: str) -> str:
    """As Ekiben's own metadata ask for it, extras included; by name alone where they do not."""
    from packaging.requirements import Requirement

    for text in metadata.requires("ekiben") or ():
        requirement = Requirement(text)
        if requirement.name == package:
            return f"{package}{requirement.specifier}"
    return package
