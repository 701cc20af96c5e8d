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

# Agents write into the workspace, so that their names there are data: no file outside is read.
cd "$MISSION_WORKSPACE"
tab=$(printf '\t')
row() { # file, title
    lines=0 public=0 longest=0 longest_file=
    while IFS=$tab read -r file l p _; do
        lines=$((lines + l)) public=$((public + p))
        if [ "$l" -gt "$longest" ]; then longest=$l longest_file=${file##*/}; fi
    done <"$1"
    files=$(wc -l <"$1")
    by=$(cut -f 4 "$1" | sort | uniq -c | while read -r n who; do echo "$who $n"; done | paste -s -d ',')
    echo "| $2 | $files | $lines | $public | $longest_file ($longest) | $(echo "$by" | sed 's/,/, /g') |"
}
rm -f all.new
for area in core bus config ctl daemon launch policy proto store supervise sys bin top; do
    cat "$area.tsv" >>all.new
done
{
    echo '# missiond, counted by its own agents'
    echo
    echo '| directory | files | lines | public items | longest file | counted by |'
    echo '|---|--:|--:|--:|---|---|'
    for area in core bus config ctl daemon launch policy proto store supervise sys bin top; do
        row "$area.tsv" "$area"
    done
    row all.new '**all**'
    echo
    echo 'Half of `core` was counted by the one and half by the other, no file twice:'
    echo
    cut -f 1,4 core.tsv | sed 's/^/    /'
} >report.md.new
mv report.md.new report.md
twice=$(cut -f 1 all.new | sort | uniq -d | wc -l)
totals=$(row all.new all)
rm all.new
if [ "$twice" -ne 0 ]; then
    missionctl task fail --reason "$twice files were counted twice"
    exit
fi
missionctl task complete --text "report.md: $totals"
