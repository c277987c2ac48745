"""The words of a comparison that its page explains."""

from __future__ import annotations

GLOSSARY = (
    (
        "Method",
        "How a pretrained network is adapted to the task: by training all of it, a small part of "
        "it, or a small additional network.",
    ),
    (
        "frozen, unet_from_scratch",
        "Two baselines. frozen trains only the decoder on the fixed pretrained network; "
        "unet_from_scratch trains a small network without pretraining. A method should be better "
        "than both.",
    ),
    (
        "Seed",
        "Initialises the random number generator; different seeds give slightly different results.",
    ),
    (
        "Interval",
        "What the metric may be for other seeds and other test units, as the text below the table "
        "states. A unit is a region or a scene, never a window: windows of a scene are alike. "
        "The intervals of differences hold all at once.",
    ),
    (
        "Verdict",
        "Read off the interval of the difference to the reference. Better: it lies above zero. "
        "Worse: below zero. Equivalent: within the margins. Not inferior: above minus the margin. "
        "No difference shown: none of these, which does not mean that there is none. No verdict: "
        "the runs or the test data do not allow one.",
    ),
    (
        "Training, validation, test",
        "Methods learn from the training data. Validation data selects the epoch and the searched "
        "values. Test data is used only for the final metrics, which this page shows.",
    ),
    (
        "Memory, predicted",
        "Peak memory of the tensors of one training step, measured during training; predicted is "
        "the estimate before training.",
    ),
    (
        "Time per step",
        "In the fastest epoch, which other processes disturbed least; includes its validation.",
    ),
    ("Trained parameters", "Number of weights that the method changes or adds."),
    ("Adapter size", "Size of the file with the trained weights, which is stored for each task."),
    (
        "Energy",
        "From the energy counters of the machine during a run, including other processes; a dash "
        "if they cannot be read.",
    ),
)
