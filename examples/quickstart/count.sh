#!/bin/sh
# Counts the Rust files of one directory: lines, public items, and who counted them.
#
# It is started once per task. What lies in $MISSION_CHECKPOINT_DIR is the task's checkpoint: whoever
# takes the task over finds it in $MISSION_HANDOFF_DIR. What it prints is the task's result.
set -eu
export LC_ALL=C

cd "${0%/*}/../.."
case $MISSION_TASK_ID in
top) files=$(find src -maxdepth 1 -name '*.rs' | sort) ;;
*) files=$(find "src/$MISSION_TASK_ID" -name '*.rs' | sort) ;;
esac
total=$(echo "$files" | wc -l)
tab=$(printf '\t')

# What the former owner has counted is taken over, not counted again.
counted=$MISSION_CHECKPOINT_DIR/counted.tsv
if [ -f "$MISSION_HANDOFF_DIR/counted.tsv" ]; then
    cp "$MISSION_HANDOFF_DIR/counted.tsv" "$counted"
    hand_over_to=
else
    : >"$counted"
    hand_over_to=$(sed -n 's/.*"hand_over_to": *"\([^"]*\)".*/\1/p' "$MISSION_TASK_FILE")
fi

for file in $files; do
    done=$(wc -l <"$counted")
    if [ -n "$hand_over_to" ] && [ $((done * 2)) -ge "$total" ]; then
        # Half is done. When the other one accepts, this process is stopped and the checkpoint goes
        # along. Should nobody accept, the work goes on here.
        missionctl task update --progress 50 --note "$done of $total files are counted" >&2
        missionctl handoff . "$hand_over_to" >&2 || true
        hand_over_to=
    fi
    grep -q "^$file$tab" "$counted" && continue
    lines=$(wc -l <"$file")
    public=$(grep -cE '^ *pub ((const|async|unsafe) )*(fn|struct|enum|trait|type|mod|static|const) ' "$file" || true)
    printf '%s\t%s\t%s\t%s\n' "$file" "$lines" "$public" "$MISSION_AGENT" >>"$counted"
    echo "counted $file" >&2
done

cp "$counted" "$MISSION_WORKSPACE/$MISSION_TASK_ID.tsv.new"
mv "$MISSION_WORKSPACE/$MISSION_TASK_ID.tsv.new" "$MISSION_WORKSPACE/$MISSION_TASK_ID.tsv"
cut -f 4 "$counted" | sort | uniq -c | while read -r number who; do
    echo "$who counted $number"
done | paste -s -d ',' | sed "s/,/, /g; s/^/$total files: /"
