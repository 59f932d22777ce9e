#!/usr/bin/env bash
# Speech recognition from raw audio to a WER report, in ESPnet's stages. A recipe's run.sh calls this with its options.
# shellcheck disable=SC2209,SC2154  # test_sets=test is the word, not the command; split assigns arrays by name
set -euo pipefail

# shellcheck source=utils/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../../utils/recipe.sh"

recipe=${caller}                # folder of the recipe; data, dump and exp go there
corpus=                         # module of bilevel/corpora
src=                            # local copy of the corpus, as seen from where you call; without it, it is downloaded
stage=1                         # first stage to run
stop_stage=13                   # last stage to run (14 packs the model)
nj=2                            # parallel processes of data stages and decoding
ngpu=0                          # GPUs for training and decoding
seed=0                          # seed of initial values, data order and masks
train_set=train                 # labelled training set
valid_set=dev                   # validation set
test_sets=test                  # test sets, separated by spaces
unlabelled_set=                 # unlabelled training set; methods with a lower level need one
pool_set=                       # divide this set into train_set (labelled) and unlabelled_set
labelled_share=                 # labelled share of pool_set by duration; 1.0: all of it is both
punctuation=remove              # remove or keep marks in text, for training and scoring
allow_partial=false             # go on although the corpus is incomplete
allow_overlap=false             # go on although test utterances are in training
same_text=warn                  # refuse or warn when a speaker says a test sentence in training too
speed_perturb_factors=          # for instance "0.9 1.0 1.1"
feats_type=raw                  # raw (front-end inside the model) or fbank (Kaldi archives)
fs=16000                        # sampling rate in Hz
resample=false                  # convert audio of another rate
max_missing_share=0             # accept files that lack so much of what their header promises, as they are
max_bad_share=0.01              # stop when more than this share of a set is quarantined
min_sec=0.1                     # shortest training utterance
max_sec=20                      # longest training utterance
token_type=bpe                  # bpe, char or word
nbpe=100                        # size of the bpe token list
method=bljust                   # supervised, pretrain_finetune, weighted_sum or bljust
pretrained=                     # experiment of ssl.sh to start from; front-end to encoder are then its own
freeze_encoder=false            # true: they keep its weights, the head alone is trained; CTC's is a linear probe
asr_config=                     # what differs from train_asr.yaml: files of yours, the recipe, the template; later wins
inference_config=decode_greedy  # yaml of the recipe or of the template
inference_model=valid.cer_ctc.ave.pth
metrics="wer cer"               # what sets are scored by; the first is printed
train_args=                     # overrides, for instance "max_epoch=2 optim_conf.lr=0.001"
asr_tag=                        # name of the experiment; by default method, configs, tokens, share, train_args and seed
report=true                     # at the end of stage 13; a comparison makes one, of all its runs
dumpdir=dump                    # formatted data
expdir=exp                      # models and results

usage() {
    echo "usage: run.sh [--option value ...]"
    echo "stages: 1 data, 2 speed perturbation, 3 format and scan, 4 filter, 5 tokens,"
    echo "        10 statistics, 11 train, 12 decode, 13 score and report, 14 pack"
    list_options
}
parse_options "$@"
from_caller -m src
from_caller -e pretrained
inference_config=$(find_config "${inference_config}")
collect_configs train_asr "${asr_config}"
if [ -n "${labelled_share}" ] && [ -z "${pool_set}" ]; then
    echo "error: --labelled_share divides --pool_set; name that set too, such as --pool_set train" >&2
    exit 2
fi
if is_true --freeze_encoder "${freeze_encoder}" && [ -z "${pretrained}" ]; then
    echo "error: --freeze_encoder keeps the weights of a pre-training; name its experiment with --pretrained" >&2
    exit 2
fi
enter_recipe
split tests "${test_sets}"
split overrides "${train_args}"
split wanted "${metrics}"
unlabelled=(${unlabelled_set:+--unlabelled_sets "${unlabelled_set}"})

if begins 1 "data directories"; then
    if [ -n "${pool_set}" ]; then
        run data --corpus "${corpus}" ${src:+--src "${src}"} --sets "${valid_set}" "${tests[@]}" \
            --pool_set "${pool_set}" --labelled_share "${labelled_share}" \
            --labelled_set "${train_set}" --unlabelled_set "${unlabelled_set}" \
            --allow_partial "${allow_partial}" --punctuation "${punctuation}"
    else
        run data --corpus "${corpus}" ${src:+--src "${src}"} --sets "${train_set}" "${valid_set}" "${tests[@]}" \
            "${unlabelled[@]:1}" "${unlabelled[@]}" --allow_partial "${allow_partial}" --punctuation "${punctuation}"
    fi
fi
labelled=${train_set}
if [ -n "${speed_perturb_factors}" ]; then
    labelled=${train_set}_sp
    if begins 2 "speed perturbation"; then
        run perturb --in_dir "data/${train_set}" --out_dir "data/${labelled}" --factors "${speed_perturb_factors}"
    fi
fi
dump=${dumpdir}/${feats_type}
if begins 3 "format and scan audio"; then
    for set in "${labelled}" "${unlabelled[@]:1}" "${valid_set}" "${tests[@]}"; do
        run format --in_dir "data/${set}" --out_dir "${dump}/org/${set}" --feats_type "${feats_type}" --fs "${fs}" \
            --resample "${resample}" --max_missing_share "${max_missing_share}" \
            --max_bad_share "${max_bad_share}" --nj "${nj}"
    done
fi
if begins 4 "filter"; then
    overlap=()
    if is_true --allow_overlap "${allow_overlap}"; then overlap=(--allow_overlap); fi
    run filter --in_dir "${dump}/org" --out_dir "${dump}" --train_sets "${labelled}" "${unlabelled[@]}" \
        --valid_sets "${valid_set}" --test_sets "${tests[@]}" --min_sec "${min_sec}" --max_sec "${max_sec}" \
        --same_text "${same_text}" --nj "${nj}" "${overlap[@]}"
fi
tokens=${dumpdir}/token_list/${token_type}_${labelled}
bpemodel=()
if [ "${token_type}" = bpe ]; then
    tokens=${dumpdir}/token_list/bpe${nbpe}_${labelled}
    bpemodel=(--bpemodel "${tokens}/bpe.model")
fi
if begins 5 "token list"; then
    run tokens --text "${dump}/${labelled}/text" --out_dir "${tokens}" --token_type "${token_type}" --nbpe "${nbpe}"
fi

changed=${labelled_share:+_share${labelled_share}}${pretrained:+_from_$(basename "${pretrained}")}
if is_true --freeze_encoder "${freeze_encoder}"; then
    changed+=_frozen
    overrides=("freeze_param=[frontend,normalize,preencoder,encoder]" "${overrides[@]}")
fi
if [ -n "${train_args}" ]; then changed+=_$(cksum <<<"${train_args}" | cut -d' ' -f1); fi
tag=${asr_tag:-asr_${method}${config}_${feats_type}_$(basename "${tokens}")${changed}_seed${seed}}
exp=${expdir}/${tag}
common=(--train_dir "${dump}/${labelled}" --valid_dir "${dump}/${valid_set}" --token_list "${tokens}/tokens.txt"
    --token_type "${token_type}" "${bpemodel[@]}" --fs "${fs}"
    --stats_dir "${expdir}/asr_stats_${feats_type}_$(basename "${tokens}")"
    "${configs[@]}" ${unlabelled_set:+--unlabelled_dir "${dump}/${unlabelled_set}"}
    ${pretrained:+--pretrained "${pretrained}"} --method "${method}" --method_dir "${template}/conf/method")
for override in "${overrides[@]}"; do common+=(--set "${override}"); done
if begins 10 "statistics"; then run stats "${common[@]}"; fi
if begins 11 "train ${method}"; then
    run train "${common[@]}" --exp_dir "${exp}" --corpus "${corpus}" --seed "${seed}" --ngpu "${ngpu}"
fi
decode_dirs=()
for set in "${valid_set}" "${tests[@]}"; do decode_dirs+=("${dump}/${set}"); done
if begins 12 "decode"; then
    run decode --exp_dir "${exp}" --model "${inference_model}" --inference_config "${inference_config}" \
        --dirs "${decode_dirs[@]}" --ngpu "${ngpu}" --nj "${nj}"
fi
if begins 13 "score and report"; then
    run evaluate --exp_dir "${exp}" --inference_config "${inference_config}" --punctuation "${punctuation}" \
        --metrics "${wanted[@]}" --dirs "${decode_dirs[@]}"
    if "${report}"; then run report "${expdir}"; fi
fi
if begins 14 "pack"; then
    run pack --exp_dir "${exp}" --model "${inference_model}" --check_dir "${dump}/${tests[0]}"
fi
