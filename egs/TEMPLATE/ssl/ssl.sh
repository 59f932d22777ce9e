#!/usr/bin/env bash
# Self-supervised pre-training from raw audio to an encoder that asr.sh --pretrained starts from, in ESPnet's stages.
# shellcheck disable=SC2154  # split assigns arrays by name
set -euo pipefail

# shellcheck source=utils/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../../utils/recipe.sh"

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
max_missing_share=0             # accept files that lack so much of what their header promises, as they are
max_bad_share=0.01              # stop when more than this share of a set is quarantined
min_sec=0.5                     # shortest training utterance
max_sec=30                      # longest training utterance
method=birq                     # bestrq, birq, birq_detached, hubert or infonce: a yaml of conf/method
ssl_config=                     # what differs from train_ssl.yaml: files of yours, the recipe, the template; later wins
ssl_init=                       # experiment to start from: CSSL before PTLOC, a warm restart, a next round
rounds=                         # "cssl ptloc cssl": stage 7 with each on top, from the one before; cssl adds nothing
kmeans_exp=                     # for hubert: experiment whose states are clustered to labels
kmeans_layer=                   # for hubert: after which block; default: 70 % of the depth
n_clusters=100                  # for hubert: number of labels
kmeans_hours=10                 # for hubert: audio that k-means is fitted on
train_args=                     # overrides, for instance "max_epoch=2 optim_conf.lr=0.001"
label=                          # name in reports; default: the method, and what it starts from or its rounds
ssl_tag=                        # name of the experiment; by default method, configs, init, train_args and seed
align_exp=                      # for stage 8: recognition experiment whose CTC aligns transcripts with frames
probe_dir=                      # for stage 8: dump directory of a set with transcripts, formatted by asr.sh
dumpdir=dump                    # formatted data
expdir=exp                      # models

usage() {
    echo "usage: run.sh [--option value ...]"
    echo "stages: 1 data, 3 format and scan, 4 filter, 5 k-means targets (hubert), 6 statistics, 7 pre-train,"
    echo "        8 probe the labels and states (linear: asr.sh --pretrained EXP --freeze_encoder true), 9 pack"
    list_options
}
parse_options "$@"
from_caller -m src
from_caller -e ssl_init kmeans_exp align_exp probe_dir
collect_configs train_ssl "${ssl_config}"
if [ "${method}" = hubert ] && [ -z "${kmeans_exp}" ]; then
    echo "error: method hubert predicts clusters of another encoder's states; name its experiment with --kmeans_exp" >&2
    exit 2
fi
split words "${rounds:-cssl}"  # without rounds there is one training, whose name has no number
deltas=()
for word in "${words[@]}"; do
    delta=
    if [ "${word}" != cssl ]; then delta=$(find_config "${word}"); fi
    deltas+=("${delta}")
done
enter_recipe
split overrides "${train_args}"

if begins 1 "data directories"; then
    run data --corpus "${corpus}" ${src:+--src "${src}"} --sets "${train_set}" "${valid_set}" \
        --unlabelled_sets "${train_set}" "${valid_set}" --allow_partial "${allow_partial}"
fi
dump=${dumpdir}/${feats_type}
if begins 3 "format and scan audio"; then
    for set in "${train_set}" "${valid_set}"; do
        run format --in_dir "data/${set}" --out_dir "${dump}/org/${set}" --feats_type "${feats_type}" --fs "${fs}" \
            --resample "${resample}" --max_missing_share "${max_missing_share}" \
            --max_bad_share "${max_bad_share}" --max_sec 3600 --nj "${nj}"
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
        run kmeans --exp_dir "${kmeans_exp}" ${kmeans_layer:+--layer "${kmeans_layer}"} \
            --n_clusters "${n_clusters}" --fit_hours "${kmeans_hours}" --out_dir "${targets}" \
            --dirs "${dump}/${train_set}" "${dump}/${valid_set}" --seed "${seed}" --ngpu "${ngpu}"
    fi
fi

changed=
stats=${expdir}/ssl_stats_${feats_type}_${train_set}_${valid_set}
pooled=()
if is_true --pool_sources "${pool_sources}"; then
    changed=_pooled
    stats+=_pooled
    pooled=(--pool_sources)
fi
changed+=${ssl_init:+_from_$(basename "${ssl_init}")}
if [ "${method}" = hubert ]; then
    changed+=_$(basename "${targets}")
    overrides=("model_conf.ssl_conf.codebook_size=${n_clusters}" "${overrides[@]}")
else
    targets=
fi
if [ -n "${train_args}" ]; then changed+=_$(cksum <<<"${train_args}" | cut -d' ' -f1); fi
tag=${ssl_tag:-ssl_${method}${config}_${feats_type}${changed}_seed${seed}}
exps=() starts=("${ssl_init}") labels=()
for word in "${words[@]}"; do
    exps+=("${expdir}/${tag}${rounds:+_round$((${#exps[@]} + 1))_$(basename "${word}" .yaml)}")
    starts+=("${exps[-1]}")
    labels+=("${label}")
    if [ -n "${rounds}" ]; then labels[-1]="${label:-${method}}: ${words[*]:0:${#exps[@]}}"; fi
done
common=(--train_dir "${dump}/${train_set}" --valid_dir "${dump}/${valid_set}" --fs "${fs}" "${configs[@]}"
    ${targets:+--targets_dir "${targets}"} "${pooled[@]}" --stats_dir "${stats}" --method "${method}"
    --method_dir "${template}/conf/method" --corpus "${corpus}" --seed "${seed}" --ngpu "${ngpu}")
for override in "${overrides[@]}"; do common+=(--set "${override}"); done
pretrain() {  # which round, further options
    run pretrain "${common[@]}" ${deltas[$1]:+--config "${deltas[$1]}"} ${starts[$1]:+--pretrained "${starts[$1]}"} \
        ${labels[$1]:+--label "${labels[$1]}"} --exp_dir "${exps[$1]}" "${@:2}"
}
if begins 6 "statistics"; then pretrain 0 --only_stats; fi
if begins 7 "pre-train ${method}"; then
    for n in "${!exps[@]}"; do pretrain "${n}"; done
fi
exp=${exps[-1]}
if begins 8 "probe"; then
    if [ -n "${align_exp}" ] && [ -n "${probe_dir}" ]; then
        run probe --exp_dir "${exp}" --align_exp "${align_exp}" --dir "${probe_dir}" \
            ${targets:+--targets_dir "${targets}"} --ngpu "${ngpu}"
    else
        echo "note: not probed; name a recognition experiment (--align_exp) and a labelled dump directory (--probe_dir)"
    fi
    echo "note: a linear CTC probe is run.sh of asr1 with --pretrained $(realpath -m -- "${exp}") --freeze_encoder true"
fi
if begins 9 "pack"; then run pack --encoder --exp_dir "${exp}" --check_dir "${dump}/${valid_set}"; fi
