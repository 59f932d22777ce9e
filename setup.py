"""Package metadata; every bound says why it is there. `constraints.txt` holds versions that were tested together."""

from pathlib import Path

from setuptools import find_packages, setup

REQUIRED = [
    "espnet==202611",  # its Task, Trainer and registries are our plug-in points; they change between releases
    "torch>=2.11,!=2.12.*,<2.15",  # ESPnet 202611's own range
    "torchaudio>=2.11,<2.12",  # ESPnet 202611's own range; we use resampling and Kaldi fbank, never load/save
    "sentencepiece==0.2.1",  # ESPnet 202611's pin; another version may segment differently
    "numpy>=2.0",  # what torch 2.11+ is built against
    "soundfile>=0.13",  # first to bundle a libsndfile that seeks correctly in Ogg/Opus
    "pyyaml>=6.0",  # safe_load as we use it
    "rapidfuzz>=3.9",  # editops on lists of words
    "sacrebleu>=2.6,<2.7",  # BLEU and chrF; its counts of a segment, which we resample, are not public
    "matplotlib>=3.8",  # curves of the report; ESPnet's trainer imports it without declaring it
    "tensorboard>=2.16",  # ESPnet's trainer imports it without declaring it
    "editdistance>=0.8",  # ESPnet's validation CER imports it without declaring it
    "opt-einsum>=3.3",  # ESPnet imports it without declaring it
    "tqdm>=4.66",  # progress bars
    "omniio>=0.1.2",  # Kaldi archives when kaldiio is absent; ESPnet brings it
]
EXTRAS = {
    "kaldiio": ["kaldiio>=2.18"],  # evaluation licence, hence optional; omniio does the same work
    "mini": ["espeakng-loader>=0.2.4"],  # eSpeak NG as a wheel, for the synthesised corpus
    "problems": [
        "clarabel>=0.9",  # exact lower solutions, joint projection of LV-HBA; its vectors can be replaced
        "scipy>=1.13",  # sparse matrices for it
    ],
    "moo": [
        "torchjd==0.18.*",  # 0.x: its interface changes from one minor release to the next
        "quadprog>=0.1.12",  # torchjd's projections; its own extra has another spelling in each pip
        "qpsolvers>=4.4",  # the interface to it that torchjd calls
    ],
    "test": [
        "pytest>=8.0",
        "ruff>=0.9",
        "cvxpy>=1.6",  # independent solutions of the inner problems of transport
        "jiwer>=4.0",  # independent scorer
        "lhotse>=1.30",  # independent data preparation
        "pandas>=2.2",  # the join of CoVoST's official script
        "torchjd==0.18.*",  # independent weightings of objectives
        "quadprog>=0.1.12",  # for it
        "qpsolvers>=4.4",  # for it
    ],
}
EXTRAS["all"] = sorted({item for items in EXTRAS.values() for item in items})

setup(
    name="bilevel",
    version="0.1.0",
    description="Bilevel training of speech models: ESPnet recipes and solvers",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["bilevel*"]),
    package_data={"bilevel.report": ["*.html"]},
    python_requires=">=3.12,<3.14",  # ESPnet 202611's own range
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["bilevel=bilevel.bin.main:main"]},
)
