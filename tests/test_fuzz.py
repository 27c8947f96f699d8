# Copyright (c) 2026 The WGAN-GP example suite authors. All Rights Reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.


"""A sample of the cases of fuzz.py."""

import fuzz


def test_readers_refuse_or_read_right():
    outcomes, failures, _, _ = fuzz.fuzz(400, seed=1)
    assert not failures, failures[0]
    # of each reader, some are refused; and of those whose damage lies beside, some are read
    assert {name for name, kind in outcomes if kind == "refused"} == {n for n, _ in outcomes}
    assert sum(count for (_, kind), count in outcomes.items() if kind == "equal") > 5
