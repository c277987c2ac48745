"""geotune: fine-tune geospatial foundation models on the hardware people have.

The functions behind the commands:

    result = geotune.fit("recipes/ships.yaml", ["train.epochs=5"])
    run = geotune.load_run(result.run)
    classes = run.predict("busan.tif")

The building blocks for your own training loop:

    encoder = geotune.attach(geotune.backbone("timm/resnet18", bands=6), geotune.Est(reduction=8))

Names are imported when they are first used, so `import geotune` is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geotune.registry import METHODS, find

if TYPE_CHECKING:
    from geotune.api.averaging import average as average
    from geotune.api.caching import cache as cache
    from geotune.api.checking import check as check
    from geotune.api.distilling import distill as distill
    from geotune.api.embedding import embed as embed
    from geotune.api.exporting import export as export
    from geotune.api.fitting import finish as finish
    from geotune.api.fitting import fit as fit
    from geotune.api.init.create_recipe import init as init
    from geotune.api.planning import plan as plan
    from geotune.api.plotting import plot as plot
    from geotune.api.prediction import predict as predict
    from geotune.api.pretraining import pretrain as pretrain
    from geotune.api.run import Run as Run
    from geotune.api.run import TrainedModel as TrainedModel
    from geotune.api.run import load_adapter as load_adapter
    from geotune.api.run import load_run as load_run
    from geotune.api.run import open_scenes as open_scenes
    from geotune.api.sharing.push import push as push
    from geotune.api.stac_card import card as card
    from geotune.api.testing import test as test
    from geotune.backbones.base import Backbone as Backbone
    from geotune.backbones.create import backbone as backbone
    from geotune.errors import GeotuneError as GeotuneError
    from geotune.errors import RecipeError as RecipeError
    from geotune.mapping.map_scenes import map_scenes as map_scenes
    from geotune.methods.adapter import Adapter as Adapter
    from geotune.methods.adaptformer import AdaptFormer as AdaptFormer
    from geotune.methods.aurora import Aurora as Aurora
    from geotune.methods.core.base import Method as Method
    from geotune.methods.core.base import attach as attach
    from geotune.methods.dtl import Dtl as Dtl
    from geotune.methods.e3va import E3va as E3va
    from geotune.methods.earth_adapter import EarthAdapter as EarthAdapter
    from geotune.methods.est import Est as Est
    from geotune.methods.hf_peft import Peft as Peft
    from geotune.methods.lora import Lora as Lora
    from geotune.methods.lorand import LoRand as LoRand
    from geotune.methods.losa import Losa as Losa
    from geotune.methods.lst import Lst as Lst
    from geotune.methods.molora import Molora as Molora
    from geotune.methods.mona import Mona as Mona
    from geotune.methods.mpo import Mpo as Mpo
    from geotune.methods.rein import Rein as Rein
    from geotune.methods.selective import BitFit as BitFit
    from geotune.methods.selective import Frozen as Frozen
    from geotune.methods.selective import Full as Full
    from geotune.methods.selective import Norm as Norm
    from geotune.methods.selective import Partial as Partial
    from geotune.methods.sherl import Sherl as Sherl
    from geotune.methods.sidetune import SideTune as SideTune
    from geotune.methods.slr import Slr as Slr
    from geotune.methods.subspace_scaling import Ssb as Ssb
    from geotune.methods.subspace_scaling import Ssl as Ssl
    from geotune.methods.unipt import Unipt as Unipt
    from geotune.methods.vit_adapter import VitAdapter as VitAdapter
    from geotune.methods.vpt import Vpt as Vpt
    from geotune.utils.remote import remote_reading as remote_reading

    __version__: str

_EXPORTS = {
    "Backbone": "geotune.backbones.base:Backbone",
    "GeotuneError": "geotune.errors:GeotuneError",
    "Method": "geotune.methods.core.base:Method",
    "RecipeError": "geotune.errors:RecipeError",
    "Run": "geotune.api.run:Run",
    "TrainedModel": "geotune.api.run:TrainedModel",
    "attach": "geotune.methods.core.base:attach",
    "average": "geotune.api.averaging:average",
    "backbone": "geotune.backbones.create:backbone",
    "cache": "geotune.api.caching:cache",
    "card": "geotune.api.stac_card:card",
    "check": "geotune.api.checking:check",
    "distill": "geotune.api.distilling:distill",
    "embed": "geotune.api.embedding:embed",
    "export": "geotune.api.exporting:export",
    "finish": "geotune.api.fitting:finish",
    "fit": "geotune.api.fitting:fit",
    "init": "geotune.api.init.create_recipe:init",
    "load_adapter": "geotune.api.run:load_adapter",
    "load_run": "geotune.api.run:load_run",
    "map_scenes": "geotune.mapping.map_scenes:map_scenes",
    "open_scenes": "geotune.api.run:open_scenes",
    "plan": "geotune.api.planning:plan",
    "plot": "geotune.api.plotting:plot",
    "predict": "geotune.api.prediction:predict",
    "pretrain": "geotune.api.pretraining:pretrain",
    "push": "geotune.api.sharing.push:push",
    "remote_reading": "geotune.utils.remote:remote_reading",
    "test": "geotune.api.testing:test",
    **{m.implementation.partition(":")[2]: m.implementation for m in METHODS.values()},
}

__all__ = ["__version__", *_EXPORTS]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("geotune")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted(__all__)


if not TYPE_CHECKING:  # type checkers must report names that do not exist

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            return _version()
        if name not in _EXPORTS:
            raise AttributeError(f"module 'geotune' has no attribute {name!r}")
        return find(_EXPORTS[name])
