#!/usr/bin/env bash
# Self-supervised pre-training from raw audio to an encoder that asr.sh --pretrained starts from, in ESPnet's stages.
set -euo pipefail

template=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "${template}/../../.." && pwd)
caller=${PWD}
python=python3
if [ -x "${root}/.venv/bin/python" ]; then python=${root}/.venv/bin/python; fi

recipe=${caller}                # folder of the recipe; data, dump and exp go there
corpus=                         # module of bilevel/corpora; "multi" pools the folders in --src as sources
src=                            # local copy of the corpus, as seen from where you call; without it, it is downloaded
stage=1                         # first stage to run
stop_stage=7                    # last stage to run (8 probes the encoder, 9 packs it)
nj=2                            # parallel processes of data stages
ngpu=0                          # GPUs for pre-training
seed=0                          # seed of initial values, data order, masks and noise
train_set=train                 # training set; its text, if any, is not used
valid_set=dev                   # validation set
allow_partial=false             # go on although the corpus is incomplete
pool_sources=false              # true: one batch a step from all data, not one of every source
feats_type=raw                  # raw (front-end inside the model) or fbank (Kaldi archives)
fs=16000                        # sampling rate in Hz
resample=false                  # convert audio of another rate
max_bad_share=0.01              # stop when more than this share of a set is quarantined
min_sec=0.5                     # shortest training utterance
max_sec=30                      # longest training utterance
method=birq                     # bestrq, birq, birq_detached, hubert or infonce: a yaml of conf/method
ssl_config=                     # what differs from train_ssl.yaml: files of yours, the recipe or the template; later wins
ssl_init=                       # experiment to start from: CSSL before PTLOC, a warm restart, a next round
kmeans_exp=                     # for hubert: experiment whose states are clustered to labels
kmeans_layer=                   # for hubert: after which block; default: 70 % of the depth
n_clusters=100                  # for hubert: number of labels
kmeans_hours=10                 # for hubert: audio that k-means is fitted on
train_args=                     # overrides, for instance "max_epoch=2 optim_conf.lr=0.001"
label=                          # name in reports; default: the method, and what it starts from
ssl_tag=                        # name of the experiment; by default method, configs, init, train_args and seed
align_exp=                      # for stage 8: recognition experiment whose CTC aligns transcripts with frames
probe_dir=                      # for stage 8: dump directory of a set with transcripts, formatted by asr.sh
dumpdir=dump                    # formatted data
expdir=exp                      # models

usage() {
    echo "usage: run.sh [--option value ...]"
    echo "stages: 1 data, 3 format and scan, 4 filter, 5 k-means targets (hubert), 6 statistics, 7 pre-train,"
    echo "        8 probe the labels and states, 9 pack"
    sed -n '/^recipe=/,/^expdir=/{s/^\([a-z_]*\)=\([^#]*\)#* *\(.*\)/  --\1 [\2] \3/;s/ *\]/]/;p}' "${BASH_SOURCE[0]}"
}
mapfile -t option_names < <(sed -n '/^recipe=/,/^expdir=/s/^\([a-z_]*\)=.*/\1/p' "${BASH_SOURCE[0]}")
# shellcheck source=utils/parse_options.sh
. "${root}/utils/parse_options.sh"

# Long options of ours are seen from the caller's folder, everything else from the recipe's.
for name in src ssl_init kmeans_exp align_exp probe_dir; do
    if [ -z "${!name}" ]; then continue; fi
    path=$(cd "${caller}" && realpath -e -- "${!name}")  # an assignment of its own, so that a failure ends the script
    printf -v "${name}" '%s' "${path}"
done
find_config() {
    for file in "$1" "${recipe}/conf/$1" "${template}/conf/$1"; do
        if [ -f "${file}" ]; then realpath -- "${file}"; return; fi
    done
    echo "error: no configuration $1 here, in ${recipe}/conf or in ${template}/conf" >&2
    return 1
}
configs=(--config "${template}/conf/train_ssl.yaml")
config=
for name in ${ssl_config}; do
    file=$(find_config "${name%.yaml}.yaml")
    configs+=(--config "${file}")
    config+=_$(basename "${file}" .yaml)
done
if [ "${method}" = hubert ] && [ -z "${kmeans_exp}" ]; then
    echo "error: method hubert predicts clusters of another encoder's states; name its experiment with --kmeans_exp" >&2
    exit 2
fi
echo "cd $(printf %q "${recipe}")  # every command below runs here"
cd "${recipe}"
export PYTHONPATH=${root}${PYTHONPATH:+:${PYTHONPATH}}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

run() {  # one stage is one plain command, printed so that it can be copied
    printf '%q ' "${python}" -m "bilevel.bin.$1" "${@:2}"
    echo
    "${python}" -m "bilevel.bin.$1" "${@:2}"
}
begins() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ] && echo "== stage $1: $2"; }
read -r -a overrides <<<"${train_args}"
given() { if [ -n "$2" ]; then printf '%s\n' "$1" "$2"; fi; }

if begins 1 "data directories"; then
    mapfile -t source < <(given --src "${src}")
    run data --corpus "${corpus}" "${source[@]}" --sets "${train_set}" "${valid_set}" \
        --unlabelled_sets "${train_set}" "${valid_set}" --allow_partial "${allow_partial}"
fi
dump=${dumpdir}/${feats_type}
if begins 3 "format and scan audio"; then
    for set in "${train_set}" "${valid_set}"; do
        run format --in_dir "data/${set}" --out_dir "${dump}/org/${set}" --feats_type "${feats_type}" --fs "${fs}" \
            --resample "${resample}" --max_bad_share "${max_bad_share}" --max_sec 3600 --nj "${nj}"
    done
fi
if begins 4 "filter"; then
    run filter --in_dir "${dump}/org" --out_dir "${dump}" --unlabelled_sets "${train_set}" --valid_sets "${valid_set}" \
        --min_sec "${min_sec}" --max_sec "${max_sec}" --nj "${nj}"
fi
targets=
if [ -n "${kmeans_exp}" ]; then
    targets=${expdir}/kmeans${n_clusters}_$(basename "${kmeans_exp}")${kmeans_layer:+_layer${kmeans_layer}}_${train_set}
    targets+=_${kmeans_hours}h_seed${seed}
    if begins 5 "k-means targets"; then
        mapfile -t layer < <(given --layer "${kmeans_layer}")
        run kmeans --exp_dir "${kmeans_exp}" "${layer[@]}" --n_clusters "${n_clusters}" --fit_hours "${kmeans_hours}" \
            --dirs "${dump}/${train_set}" "${dump}/${valid_set}" --out_dir "${targets}" --seed "${seed}" --ngpu "${ngpu}"
    fi
fi

changed=
if "${pool_sources}"; then changed=_pooled; fi
changed+=${ssl_init:+_from_$(basename "${ssl_init}")}
if [ "${method}" = hubert ]; then
    changed+=_$(basename "${targets}")
    overrides=("model_conf.ssl_conf.codebook_size=${n_clusters}" "${overrides[@]}")
else
    targets=
fi
if [ -n "${train_args}" ]; then changed+=_$(cksum <<<"${train_args}" | cut -d' ' -f1); fi
exp=${expdir}/${ssl_tag:-ssl_${method}${config:-_train_ssl}_${feats_type}${changed}_seed${seed}}
mapfile -t sources < <(given --targets_dir "${targets}" && given --pretrained "${ssl_init}" && given --label "${label}")
stats=${expdir}/ssl_stats_${feats_type}_${train_set}_${valid_set}
if "${pool_sources}"; then
    sources+=(--pool_sources)
    stats+=_pooled
fi
for override in "${overrides[@]}"; do sources+=(--set "${override}"); done
common=(--train_dir "${dump}/${train_set}" --valid_dir "${dump}/${valid_set}" --fs "${fs}" "${configs[@]}"
    "${sources[@]}" --stats_dir "${stats}" --method "${method}"
    --method_dir "${template}/conf/method" --exp_dir "${exp}" --corpus "${corpus}" --seed "${seed}" --ngpu "${ngpu}")
if begins 6 "statistics"; then run pretrain "${common[@]}" --only_stats; fi
if begins 7 "pre-train ${method}"; then run pretrain "${common[@]}"; fi
if begins 8 "probe"; then
    if [ -n "${align_exp}" ] && [ -n "${probe_dir}" ]; then
        mapfile -t labels < <(given --targets_dir "${targets}")
        run probe --exp_dir "${exp}" --align_exp "${align_exp}" --dir "${probe_dir}" "${labels[@]}" --ngpu "${ngpu}"
    else
        echo "note: not probed; name a recognition experiment (--align_exp) and a labelled dump directory (--probe_dir)"
    fi
fi
if begins 9 "pack"; then run pack_encoder --exp_dir "${exp}" --check_dir "${dump}/${valid_set}"; fi
