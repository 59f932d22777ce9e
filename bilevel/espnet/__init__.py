"""The plug-in: Task, Trainer, Model and iterators for ESPnet. The only package that imports espnet2."""
