#!/usr/bin/env bash
# Starts the MLflow server of a cluster on the head's loopback, in place of one that this script started before.
#
#   mlflow.sh [--shared FOLDER] [--artifacts URL] [--store URL] [--stop]
#
#   --shared     holds database, log and process id; default /mnt/qa-sweeps
#   --artifacts  s3://, gs:// or a folder; default: a folder beside the database
#   --store      another database, such as postgresql://USER@HOST/DATABASE (its password in ~/.pgpass, where no other
#                user sees it); default: SQLite in the shared folder
set -euo pipefail

shared=/mnt/qa-sweeps artifacts="" store="" stop=no
while (($#)); do
    case $1 in
        --shared) shared=$2; shift 2 ;;
        --artifacts) artifacts=$2; shift 2 ;;
        --store) store=$2; shift 2 ;;
        --stop) stop=yes; shift ;;
        *) echo "mlflow.sh: unknown option '$1' (allowed: --shared --artifacts --store --stop)" >&2; exit 1 ;;
    esac
done
folder=$shared/mlflow
state=$HOME/.qa-sweeps-mlflow
mkdir -p "$folder" "$state"

# By its id, and only if that is still the server: ids are used again after a restart of the machine.
if [[ -s $state/pid ]]; then
    former=$(cat "$state/pid")
    if tr '\0' ' ' < "/proc/$former/cmdline" 2> /dev/null | grep -q 'mlflow.* server '; then
        kill -TERM -- "-$former" 2> /dev/null || true
        for _ in $(seq 50); do kill -0 -- "-$former" 2> /dev/null || break; sleep 0.2; done
        kill -KILL -- "-$former" 2> /dev/null || true
    fi
    rm -f "$state/pid"
fi
[[ $stop == no ]] || exit 0

# A session of its own, so that it survives the ssh command that started it and can be ended as a group.
# One worker without the job runner: a sweep has a single writer, and each process costs some 250 MB.
# The store is no argument, since every user of the machine sees those.
export MLFLOW_BACKEND_STORE_URI=${store:-sqlite:///$folder/mlflow.db} MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
setsid nohup python -m mlflow server \
    --host 127.0.0.1 --port 5000 --workers 1 \
    --artifacts-destination "${artifacts:-$folder/artifacts}" \
    < /dev/null > "$folder/server.log" 2>&1 &
echo $! > "$state/pid"
for _ in $(seq 240); do
    kill -0 "$(cat "$state/pid")" 2> /dev/null || { tail -n 20 "$folder/server.log" >&2; exit 1; }
    if python -c 'import urllib.request as u; u.urlopen("http://127.0.0.1:5000/health", timeout=2)' 2> /dev/null; then
        echo "mlflow.sh: http://127.0.0.1:5000 on this machine's loopback"
        exit 0
    fi
    sleep 0.5
done
echo "mlflow.sh: no answer within two minutes; see $folder/server.log" >&2
exit 1
