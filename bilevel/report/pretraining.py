"""Pre-trainings: how they ended, what their labels say about characters, and their curves."""

from collections.abc import Mapping, Sequence

from bilevel.report.plots import Panel, Plot, curve_plots
from bilevel.report.runs import Run, method_order
from bilevel.report.tables import Cell, Table, fold_empty, mean_and_range

# (heading, key in train.jsonl, factor, format)
_COLUMNS = (
    ("Training loss", "train_lower_loss", 1, ".3f"),
    ("Validation loss", "valid_lower_loss", 1, ".3f"),
    ("Accuracy %", "valid_ssl_acc", 100, ".1f"),
    ("Anchor perplexity", "ssl_label_perplexity", 1, ".1f"),
    ("Enhanced perplexity", "ssl_enhanced_perplexity", 1, ".1f"),
    ("Agreement %", "ssl_agreement", 100, ".1f"),
    ("Noise flips %", "ssl_noise_flips", 100, ".1f"),
    ("Entropy", "ssl_enhanced_entropy", 1, ".2f"),
)
_PROBE_COLUMNS = (
    ("Unit purity %", "unit_purity", 100, ".1f"),
    ("Label purity %", "label_purity", 100, ".1f"),
    ("PNMI", "pnmi", 1, ".3f"),
    ("Perplexity", "perplexity", 1, ".1f"),
)
_PANELS = (
    Panel("Loss", "loss", (("train_lower_loss", "-", "training"), ("valid_lower_loss", "--", "validation"))),
    Panel(
        "Accuracy on masked frames",
        "%",
        (("ssl_acc", "-", "training"), ("valid_ssl_acc", "--", "validation")),
        factor=100,
    ),
    Panel(
        "Codes in use",
        "perplexity",
        (("ssl_label_perplexity", "-", "anchor"), ("ssl_enhanced_perplexity", "--", "enhanced")),
    ),
    Panel("Loss by labels", "loss", (("ssl_loss_anchor", "-", "anchor"), ("ssl_loss_enhanced", "--", "enhanced"))),
    Panel("Anchor and enhanced labels agree", "% of frames", (("ssl_agreement", "-", ""),), factor=100),
    Panel("Entropy of enhanced labels", "nats", (("ssl_enhanced_entropy", "-", ""),)),
    Panel("Spread of the states", "deviation", (("ssl_feature_std", "-", ""),)),
    Panel("Gradient norm", "norm", (("grad_norm", "-", ""),), log=True),
    Panel("Learning rate", "learning rate", (("lr", "-", ""),)),
)


def pretraining_table(runs: Sequence[Run]) -> Table:
    """One row a pre-training label: what its runs have logged of their last epoch, mean and range over them."""
    rows = []
    for (corpus, method), own in _groups(runs).items():
        last = [run.epochs[-1] if run.epochs else {} for run in own]
        rows.append([Cell(corpus), Cell(method), Cell(str(len(own)), len(own)), *_cells(last, _COLUMNS)])
    note = (
        "Last epoch: mean over runs, and range. Losses and accuracies compare only between methods that predict the "
        "same targets: easier targets have better ones. Accuracy is that of the validation set; perplexity says how "
        "many codes are in use; agreement is between anchor and enhanced labels; noise flips are the frames where "
        "Gumbel noise takes another code than the encoder's; entropy, in nats, is that of enhanced labels."
    )
    return fold_empty(("Corpus", "Method", "Runs", *(name for name, *_ in _COLUMNS)), rows, note, ("Corpus",))


def probe_table(runs: Sequence[Run]) -> Table:
    """What each kind of label says about characters, of the pre-trainings that were probed (stage 8)."""
    groups: dict[tuple, list[Mapping[str, float]]] = {}
    for (corpus, method), own in _groups(runs).items():
        for probe in (run.probe for run in own if run.probe):
            for kind, row in probe["labels"].items():
                groups.setdefault((corpus, probe["set"], probe["align_exp"], method, kind), []).append(row)
    rows = [
        [*map(Cell, key), Cell(str(len(own)), len(own)), *_cells(own, _PROBE_COLUMNS)] for key, own in groups.items()
    ]
    note = (
        "Labels against characters that a recognition model has aligned, frame by frame: mean over runs, and range. "
        "Unit purity grows with the number of codes, label purity falls; PNMI is the share of the characters' "
        "information that a label carries."
    )
    names = ("Corpus", "Set", "Aligned by")
    return fold_empty((*names, "Method", "Labels", "Runs", *(name for name, *_ in _PROBE_COLUMNS)), rows, note, names)


def pretraining_plots(runs: Sequence[Run]) -> list[Plot]:
    """Curves of the pre-trainings, one plot a quantity; loss and share of the audio have one for each source."""
    own = [run for run in runs if run.kind == "pretraining"]
    sources = sorted({key[4:] for run in own for row in run.epochs for key in row if key.startswith("mix_")})
    panels = [Panel(f"Loss on source {name}", "loss", ((f"ssl_loss_{name}", "-", ""),)) for name in sources]
    panels += [
        Panel(f"Mix: source {name}", "% of the audio", ((f"mix_{name}", "-", ""),), factor=100) for name in sources
    ]
    return curve_plots(own, (*_PANELS, *panels))


def _groups(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    """Pre-trainings by (corpus, label), in report order."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.kind == "pretraining":
            groups.setdefault((run.corpus, run.method), []).append(run)
    return dict(sorted(groups.items(), key=lambda item: (item[0][0], method_order(item[0][1]))))


def _cells(rows: Sequence[Mapping], columns: Sequence[tuple[str, str, float, str]]) -> list[Cell]:
    """A cell for each column, over the rows that have it."""
    return [
        mean_and_range([float(row[key]) for row in rows if row.get(key) is not None], factor, form)
        for _, key, factor, form in columns
    ]
