#!/bin/sh
# Leads: hears of every task that ends, and writes the report when that is what it is to do.
#
# A service that is a shell script: `missionctl inbox --each` runs it once for each message, which is
# acknowledged when it ends with exit code 0.
set -eu
export LC_ALL=C

if [ -z "${MISSION_MESSAGE_ID-}" ]; then
    exec missionctl inbox --each -- "$0"
fi

case $MISSION_MESSAGE_TYPE in
task_complete)
    echo "$MISSION_TASK_ID has ended"
    exit
    ;;
task_assign) ;;
*) exit ;;
esac

cd "$MISSION_WORKSPACE"
areas='bin bus config core ctl daemon doctor launch policy proto run store supervise sys top workspace'
tab=$(printf '\t')

by() { # file: who counted how many of its rows
    cut -f 4 "$1" | sort | uniq -c | while read -r number who; do
        echo "$who $number"
    done | paste -s -d ',' | sed 's/,/, /g'
}

row() { # file, title: its line of the table; leaves the sums in files and lines
    files=0 lines=0 public=0 longest=0 longest_file=
    while IFS=$tab read -r file l p _; do
        files=$((files + 1)) lines=$((lines + l)) public=$((public + p))
        if [ "$l" -gt "$longest" ]; then longest=$l longest_file=${file##*/}; fi
    done <"$1"
    echo "| $2 | $files | $lines | $public | $longest_file ($longest) | $(by "$1") |"
}

: >all.new
for area in $areas; do cat "$area.tsv" >>all.new; done
{
    echo '# missiond, counted by its own agents'
    echo
    echo '| directory | files | lines | public items | longest file | counted by |'
    echo '|---|--:|--:|--:|---|---|'
    for area in $areas; do row "$area.tsv" "$area"; done
    row all.new '**all**'
    echo
    echo "\`core\` was handed over half way: $(by core.tsv), no file twice."
    echo
    cut -f 1,4 core.tsv | sed 's/^/    /'
} >report.new
mv report.new report.md
twice=$(cut -f 1 all.new | sort | uniq -d | wc -l)
summary="$files files, $lines lines in out/report.md; counted by $(by all.new)"
rm all.new
if [ "$twice" -ne 0 ]; then
    missionctl task fail --reason "$twice files were counted twice"
    exit
fi
missionctl task complete --text "$summary"
