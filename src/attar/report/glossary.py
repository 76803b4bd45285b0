"""The words of the page in a sentence each; shown as a list at its end and as tooltips where they
occur."""

from __future__ import annotations

WORDS: dict[str, str] = {
    "teacher, student": "the big model, and the smaller one that learns from its answers",
    "accuracy": "share of texts whose predicted label is the right one",
    "macro F1": "mean of the classes' F1, each counting the same however rare it is; the F1 of a "
    "class is the harmonic mean of its precision (share of its predictions that are right) and "
    "recall (share of its texts that are found)",
    "confidence": "probability that a model gives to its own answer",
    "calibration error": "expected calibration error (ECE): how far confidence is from the share "
    "of right answers, on average over texts in 15 bins of confidence; 0 is perfect",
    "point": "a hundredth of a metric: 83.1 % is 0.4 points below 83.5 %",
    "interval": "95 % interval: where the figure would land in 95 of 100 draws of the same "
    "number of texts, by resampling the measured ones",
    "no measurable difference": "the 95 % interval of a paired difference contains zero: "
    "these texts cannot tell the two models apart; outside of it the difference is real",
    "pairs": "two runs that differ in their method and share their seed; "
    "what the seed did to both cancels in their difference",
    "p of signs": "share of all ways to flip the signs of the differences whose mean is as far "
    "from 0: small when seeds agree, never below 2 in 2 to the number of seeds",
    "latency": "milliseconds of one forward pass; p50 is the median, "
    "95 of 100 passes take no longer than p95",
    "prefill": "reading a text before the first token is written: an encoder's pass, or a "
    "decoder's over the whole text",
    "decode step": "writing one token behind what was read",
    "throughput": "texts a second, read in batches of the size given",
    "size": "weights and graph files on disk, tokenizer left out, in MiB (1,048,576 bytes)",
    "parameters": "numbers a model has learned, each counted once",
    "FLOPs": "floating-point operations of one forward pass; a multiply-add counts as two",
    "peak memory": "most resident memory of a process that does nothing but run the model",
    "int8": "weights and activations stored and multiplied as 8-bit integers (also W8A8)",
    "simulated": "a float model rounded to the integer grid: "
    "what the deployed one computes, up to rounding; slow",
    "deployed": "the same in real integers, run by OpenVINO or ONNX Runtime",
    "distinct n-grams": "different n-grams of a sample of texts over all its n-grams; "
    "a teacher that repeats itself has few",
    "site": "a place in the model where an activation is quantized",
    "SQNR": "signal to quantization noise in dB, 20·log10(‖x‖ / ‖x − y‖); 6 dB are about one bit",
    "calibration": "texts that set the ranges of the quantizers",
    "parity": "how near the deployed model's outputs are to the simulated one's",
    "fusion audit": "which matrix multiplications the runtime really runs in integers, "
    "and why not the others",
    "vectors": "what a model that embeds makes of texts; two texts are alike where the cosine of "
    "their vectors is near 1",
    "gate": "a promise of the recipe about a metric; when missed, the run ends with exit code 6",
    "zero-shot": "asked as a text to go on with, without examples and without training on the task",
    "chance": "what guessing scores; a model whose interval contains it is at chance: "
    "these rows do not show that it knows anything of the task",
    "score": "how much likelier a chunk is to the teacher than to the reference: "
    "the difference of their mean log-probabilities, in nats a token",
    "Vendi score": "effective number of distinct items in a sample: the exponential of the entropy "
    "of the eigenvalues of its similarity matrix",
    "near duplicate": "a chunk that shares most of its word 5-grams with an earlier one",
    "failed run": "a run of several seeds whose loss at the end lies above the others': the median "
    "excess of its last quarter is beyond 6 robust spreads of the runs and 5 % of the loss's fall",
    "key": "hash of a step's settings, inputs and code: the same key is the same work, "
    "and is reused",
}
"""Word → meaning, in the order of the page."""


def word_id(word: str) -> str:
    """The anchor of a word on the page.

    Example:
        >>> word_id("peak memory")
        'word-peak-memory'
    """
    return "word-" + "".join(letter if letter.isalnum() else "-" for letter in word.lower())
