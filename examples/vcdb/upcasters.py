"""The registry: VERIS 1.3.0 is version 1 of `IncidentRecorded`, VERIS 1.3.7 version 8."""

from __future__ import annotations

from eventmig import Registry
from examples.vcdb.schemas import schemas_from_environment
from examples.vcdb.steps import (
    to_1_3_1,
    to_1_3_2,
    to_1_3_3,
    to_1_3_4,
    to_1_3_5,
    to_1_3_6,
    to_1_3_7,
)

CHAIN = (
    to_1_3_1.STEP,
    to_1_3_2.STEP,
    to_1_3_3.STEP,
    to_1_3_4.STEP,
    to_1_3_5.STEP,
    to_1_3_6.STEP,
    to_1_3_7.STEP,
)

registry = Registry(CHAIN, schemas=schemas_from_environment())
