#!/bin/sh
# Follows the log of the mission and notes how tasks move from one agent to another. Its role lets it
# see everything, and change nothing.
set -eu
exec missionctl events --follow --since 0 --kind handoff_requested --kind handoff_completed \
    --kind task_completed --kind task_failed
