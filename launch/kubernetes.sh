#!/usr/bin/env bash
# Trains on a TPU slice of a Google Kubernetes Engine cluster with JobSet (https://jobset.sigs.k8s.io), one pod per
# host. When a host is preempted or a process fails, JobSet restarts all pods and the run continues.
#
#   bash launch/kubernetes.sh apply FLAGS -- --config=configs/large.py --workdir=DIR [flags of bertjax.train]
#   bash launch/kubernetes.sh delete [--name=NAME] [--namespace=NAME]     saves a checkpoint and stops the run
#
# FLAGS:
#   --image=IMAGE           image built from launch/Dockerfile
#   --accelerator=NAME      node label cloud.google.com/gke-tpu-accelerator, e.g. tpu-v5-lite-podslice
#   --topology=AxB[xC]      node label cloud.google.com/gke-tpu-topology, e.g. 16x16
#   --chips=N               chips per host; default: 4
#   --claim=NAME            PersistentVolumeClaim for --workdir, writable by all pods, mounted at /shared
#   --service-account=NAME  service account of the pods, if reading the corpus (gs://) needs one
#   --spot                  spot nodes
#   --restarts=N            maximum number of restarts; default: 20
#   --name=NAME             name of the JobSet; default: bertjax
#   --namespace=NAME        Kubernetes namespace; default: default
#   --dry-run               prints the command and the manifest without running it
set -euo pipefail
. "$(dirname "$0")/commands.sh"
IMAGE='' ACCELERATOR='' TOPOLOGY='' CHIPS=4 CLAIM='' SERVICE_ACCOUNT='' SPOT='' RESTARTS=20 NAME=bertjax NAMESPACE=default

main() {
  read_flags 'image accelerator topology chips claim service-account restarts name namespace' 'spot' "$@"
  need name namespace
  need_tool kubectl https://kubernetes.io/docs/tasks/tools
  case "$ACTION" in
    apply) apply ;;
    delete) must "delete the JobSet $NAME" kubectl delete jobset "$NAME" --namespace="$NAMESPACE" && log "deleted $NAME" ;;
    *) fail "${ACTION:-no action}: expected apply or delete; bash $0 --help shows the usage" ;;
  esac
}

apply() {
  local all first
  need image accelerator topology
  need_whole chips restarts
  [[ "$TOPOLOGY" =~ ^[1-9][0-9]*x[1-9][0-9]*(x[1-9][0-9]*)?$ ]] || fail "--topology=$TOPOLOGY: expected a topology such as 16x16 or 4x4x8"
  all=$((${TOPOLOGY//x/*}))
  ((all % CHIPS == 0)) || fail "--topology=$TOPOLOGY: its $all chips are not a multiple of --chips=$CHIPS"
  need_train_flags
  INPUT="$(manifest $((all / CHIPS)))" must "create the JobSet $NAME" kubectl apply --filename=-
  first="jobset.sigs.k8s.io/jobset-name=$NAME,batch.kubernetes.io/job-completion-index=0"
  log "created $NAME; its state: kubectl get jobset $NAME --namespace=$NAMESPACE"
  log "its log: kubectl logs --follow --namespace=$NAMESPACE --selector=$first"
}

# manifest HOSTS: prints the JobSet.
manifest() {
  local account='' spot='' mount='' volume=''
  if [[ "$SERVICE_ACCOUNT" ]]; then account="serviceAccountName: $SERVICE_ACCOUNT"; fi
  if [[ "$SPOT" ]]; then spot='cloud.google.com/gke-spot: "true"'; fi
  if [[ "$CLAIM" ]]; then
    mount='volumeMounts: [{name: shared, mountPath: /shared}]'
    volume="volumes: [{name: shared, persistentVolumeClaim: {claimName: $CLAIM}}]"
  fi
  sed '/^ *$/d' << END
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $NAME
  namespace: $NAMESPACE
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: $RESTARTS
  replicatedJobs:
  - name: slice
    replicas: 1
    template:
      spec:
        parallelism: $1
        completions: $1
        backoffLimit: 0
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 300
            $account
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: $ACCELERATOR
              cloud.google.com/gke-tpu-topology: $TOPOLOGY
              $spot
            containers:
            - name: train
              image: $IMAGE
              command: [bash, launch/worker.sh, run]
              args:
$(arguments "${TRAIN_FLAGS[@]}")
              ports:
              - containerPort: 8471
              - containerPort: 8482
              resources:
                requests: {google.com/tpu: $CHIPS}
                limits: {google.com/tpu: $CHIPS}
              $mount
            $volume
END
}

# Prints each argument as a YAML string in single quotes, with $(NAME), which Kubernetes would expand, escaped.
arguments() {
  local argument
  for argument; do
    # shellcheck disable=SC2016
    argument="$(sed -e "s/'/''/g" -e 's/\$(/$$(/g' <<< "$argument")"
    printf "              - '%s'\n" "$argument"
  done
}

main "$@"
