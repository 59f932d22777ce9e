"""Where the formatted data of a set lie, and how ESPnet is told about them."""

from pathlib import Path

from bilevel.data.tables import read_scp


class DumpSet:
    """One set below the dump directory: raw audio (wav.scp) or features (feats.scp).

    Raises:
        ValueError: The folder has neither.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if (self.folder / "feats.scp").exists():
            self.scp, self.type, self.lengths = self.folder / "feats.scp", "kaldi_ark", self.folder / "utt2num_frames"
        elif (self.folder / "wav.scp").exists():
            self.scp, self.type, self.lengths = self.folder / "wav.scp", "sound", self.folder / "utt2num_samples"
        else:
            raise ValueError(f"{folder}: expected wav.scp or feats.scp; run stages 3 and 4 (format, filter) first")

    @property
    def text(self) -> Path:
        """The transcripts, normalised."""
        return self.folder / "text"

    def data_options(self, split: str) -> list[str]:
        """`--train_data_path_and_name_and_type ...` for speech and text; split is train or valid."""
        option = f"--{split}_data_path_and_name_and_type"
        return [option, f"{self.scp},speech,{self.type}", option, f"{self.text},text,text"]

    def input_size(self) -> int | None:
        """Feature dimension of extracted features; None for raw audio."""
        file = self.folder / "feats_dim"
        return int(file.read_text().strip().split()[-1]) if self.type == "kaldi_ark" else None

    def by_length(self) -> list[str]:
        """Ids of the utterances, shortest first."""
        lengths = {key: int(n) for key, n in read_scp(self.lengths).items()}
        return sorted(lengths, key=lambda key: (lengths[key], key))

    def speech_shapes(self) -> list[str]:
        """ESPnet's shape lines, `id samples` or `id frames,dim`, from the stored lengths: no audio is opened."""
        suffix = f",{self.input_size()}" if self.type == "kaldi_ark" else ""
        return [f"{key} {n}{suffix}" for key, n in read_scp(self.lengths).items()]
