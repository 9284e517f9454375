"""Data pipeline: the train/validation split, token files, and batches of data windows."""

from gptkit.data.dataset import GPTDataset as GPTDataset
from gptkit.data.dataset import create_dataloader as create_dataloader
from gptkit.data.preparation import Prepared as Prepared
from gptkit.data.preparation import Progress as Progress
from gptkit.data.preparation import open_prepared as open_prepared
from gptkit.data.preparation import prepare as prepare
from gptkit.data.split import Split as Split
from gptkit.data.split import corpus_texts as corpus_texts
from gptkit.data.split import plan_split as plan_split
from gptkit.data.windows import Batch as Batch
from gptkit.data.windows import Windows as Windows
