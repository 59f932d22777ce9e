#!/usr/bin/env bash
# Recognition and translation of several languages with one encoder, from raw audio to WER and BLEU, in ESPnet's stages.
# A recipe's run.sh calls this with its options.
# shellcheck disable=SC2209,SC2154  # test_parts=test is the word, not the command; split assigns arrays by name
set -euo pipefail

# shellcheck source=utils/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../../utils/recipe.sh"

recipe=${caller}                # folder of the recipe; data, dump and exp go there
corpus=                         # module of bilevel/corpora
src=                            # local copy of the corpus, as seen from where you call; without it, it is downloaded
stage=1                         # first stage to run
stop_stage=13                   # last stage to run (14 packs a model for each objective)
nj=2                            # parallel processes of data stages and decoding
ngpu=0                          # GPUs for training and decoding
seed=0                          # seed of initial values, data order and masks
langs=                          # spoken languages, such as "fr de"; the sets of each are LANG_PART
objectives=                     # asr_LANG, st_LANG_TARGET and ssl (all training speech), such as "asr_fr st_fr_en ssl"
train_part=train                # part with training data
valid_part=dev                  # part for validation
test_parts=test                 # parts for tests, separated by spaces
punctuation=remove              # remove or keep marks in transcripts; translations are as published
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
token_type=bpe                  # bpe, char or word, for transcripts
nbpe=100                        # size of a bpe token list for transcripts
st_token_type=bpe               # bpe, char or word, for translations
st_nbpe=100                     # size of a bpe token list for translations
method=vc                       # a yaml of conf/method, here or in the recipe: two_stage, sum, vs, vc, vm_asr, vm_st, ...
pretrained=                     # experiment of ssl.sh to start from; front-end to encoder are then its own
st_config=                      # what differs from train_st.yaml: files of yours, the recipe, the template; later wins
inference_config=decode_greedy  # yaml for recognition, of the recipe or of the templates
st_inference_config=decode_translation  # yaml for translation
inference_model=valid.loss.ave.pth
tokenize=                       # of BLEU: 13a, zh, char or ja-mecab; default: zh or char for Chinese or Japanese, else 13a
train_args=                     # overrides, for instance "max_epoch=2 optim_conf.lr=0.001"
label=                          # name in reports; default: the method
st_tag=                         # name of the experiment; by default method, configs, tokens, data, train_args and seed
report=true                     # at the end of stage 13; a comparison makes one, of all its runs
dumpdir=dump                    # formatted data
expdir=exp                      # models and results

usage() {
    echo "usage: run.sh [--option value ...]"
    echo "stages: 1 data, 2 speed perturbation, 3 format and scan, 4 filter, 5 tokens, 10 data of objectives,"
    echo "        11 train, 12 decode, 13 score and report, 14 pack"
    list_options
}
parse_options "$@"
from_caller -m src
from_caller -e pretrained
inference_config=$(find_config "${inference_config}")
st_inference_config=$(find_config "${st_inference_config}")
collect_configs train_st "${st_config}"
method_dir=${template}/conf/method
if [ -f "${recipe}/conf/method/${method}.yaml" ]; then method_dir=$(realpath -- "${recipe}/conf/method"); fi
split languages "${langs}"
split names "${objectives}"
for name in "${names[@]}"; do
    IFS=_ read -r task lang target more <<<"${name}"
    if [ "${name}" = ssl ]; then continue; fi
    if [[ " ${languages[*]} " != *" ${lang} "* || -n ${more} ||
        ! (${task} = asr && -z ${target} || ${task} = st && -n ${target}) ]]; then
        echo "error: objective ${name}: expected asr_LANG, st_LANG_TARGET or ssl with LANG among --langs ${langs}" >&2
        exit 2
    fi
done
enter_recipe
split tests "${test_parts}"
split overrides "${train_args}"
trains=("${languages[@]/%/_${train_part}}")
valids=("${languages[@]/%/_${valid_part}}")
test_sets=()
for part in "${tests[@]}"; do test_sets+=("${languages[@]/%/_${part}}"); done

if begins 1 "data directories"; then
    run data --corpus "${corpus}" ${src:+--src "${src}"} --sets "${trains[@]}" "${valids[@]}" "${test_sets[@]}" \
        --allow_partial "${allow_partial}" --punctuation "${punctuation}"
fi
suffix=
if [ -n "${speed_perturb_factors}" ]; then
    suffix=_sp
    if begins 2 "speed perturbation"; then
        for set in "${trains[@]}"; do
            run perturb --in_dir "data/${set}" --out_dir "data/${set}_sp" --factors "${speed_perturb_factors}"
        done
    fi
fi
trains=("${trains[@]/%/${suffix}}")
dump=${dumpdir}/${feats_type}
if begins 3 "format and scan audio"; then
    for set in "${trains[@]}" "${valids[@]}" "${test_sets[@]}"; do
        run format --in_dir "data/${set}" --out_dir "${dump}/org/${set}" --feats_type "${feats_type}" --fs "${fs}" \
            --resample "${resample}" --max_missing_share "${max_missing_share}" \
            --max_bad_share "${max_bad_share}" --nj "${nj}"
    done
fi
if begins 4 "filter"; then
    overlap=()
    if is_true --allow_overlap "${allow_overlap}"; then overlap=(--allow_overlap); fi
    run filter --in_dir "${dump}/org" --out_dir "${dump}" --train_sets "${trains[@]}" --valid_sets "${valids[@]}" \
        --test_sets "${test_sets[@]}" --min_sec "${min_sec}" --max_sec "${max_sec}" --same_text "${same_text}" \
        --nj "${nj}" "${overlap[@]}"
fi

streams=()  # options of bilevel multitask
texts=()    # objectives that predict text
declare -A table metrics search
for name in "${names[@]}"; do
    IFS=_ read -r task lang target <<<"${name}"
    train_dir=${dump}/${lang}_${train_part}${suffix}
    if [ "${task}" = ssl ]; then
        streams+=(--stream ssl "$(IFS=, && echo "${trains[*]/#/${dump}/}")" "$(IFS=, && echo "${valids[*]/#/${dump}/}")" - -)
        continue
    elif [ "${task}" = asr ]; then
        units=${token_type} n=${nbpe} table[${name}]=text search[${name}]=${inference_config}
        metrics[${name}]="wer cer"
        if [[ ${lang} =~ ^(zh|ja|th) ]]; then metrics[${name}]=cer; fi  # no spaces between words
    else
        units=${st_token_type} n=${st_nbpe}
        if [[ ${units} = word && ${target} =~ ^(zh|ja|th) ]]; then
            units=char
            echo "note: ${name}: characters, since ${target} is written without spaces"
        fi
        table[${name}]=text.${target} search[${name}]=${st_inference_config}
        metrics[${name}]="bleu chrf"
    fi
    texts+=("${name}")
    tokens=${dumpdir}/token_list/${units/bpe/bpe${n}}_${name}${suffix}
    if begins 5 "token list of ${name}"; then
        run tokens --text "${train_dir}/${table[${name}]}" --out_dir "${tokens}" --token_type "${units}" --nbpe "${n}"
    fi
    streams+=(--stream "${name}" "${train_dir}" "${dump}/${lang}_${valid_part}" "${tokens}" "${units}")
done

changed=${pretrained:+_from_$(basename "${pretrained}")}
if [ -n "${train_args}" ]; then changed+=_$(cksum <<<"${train_args}" | cut -d' ' -f1); fi
kinds=${token_type/bpe/bpe${nbpe}}_${st_token_type/bpe/bpe${st_nbpe}}
data=$(cksum <<<"${names[*]} ${trains[*]}" | cut -d' ' -f1)
tag=${st_tag:-st_${method}${config}_${feats_type}_${kinds}_${data}${suffix}${changed}_seed${seed}}
exp=${expdir}/${tag}
stats=${expdir}/st_stats_${feats_type}_${kinds}_${data}${suffix}
common=("${streams[@]}" --fs "${fs}" --stats_dir "${stats}" "${configs[@]}"
    ${pretrained:+--pretrained "${pretrained}"} --method "${method}" --method_dir "${method_dir}"
    ${label:+--label "${label}"} --exp_dir "${exp}" --corpus "${corpus}" --seed "${seed}" --ngpu "${ngpu}")
for override in "${overrides[@]}"; do common+=(--set "${override}"); done
if begins 10 "data of objectives"; then run multitask "${common[@]}" --only_stats; fi
if begins 11 "train ${method}"; then run multitask "${common[@]}"; fi
for name in "${texts[@]}"; do
    IFS=_ read -r task lang target <<<"${name}"
    dirs=("${dump}/${lang}_${valid_part}" "${tests[@]/#/${dump}/${lang}_}")
    if begins 12 "decode ${name}"; then
        run decode --exp_dir "${exp}" --objective "${name}" --model "${inference_model}" \
            --inference_config "${search[${name}]}" --dirs "${dirs[@]}" --ngpu "${ngpu}" --nj "${nj}"
    fi
    if begins 13 "score ${name}"; then
        split wanted "${metrics[${name}]}"
        words=${tokenize}
        if [ -z "${words}" ] && [ "${task}" = st ]; then
            case "${target}" in zh*) words=zh ;; ja*) words=char ;; esac
        fi
        run evaluate --exp_dir "${exp}" --objective "${name}" --inference_config "${search[${name}]}" \
            --table "${table[${name}]}" --metrics "${wanted[@]}" ${words:+--tokenize "${words}"} \
            --punctuation "${punctuation}" --dirs "${dirs[@]}"
    fi
    if begins 14 "pack ${name}"; then
        run pack --exp_dir "${exp}" --objective "${name}" --model "${inference_model}" --check_dir "${dirs[1]}"
    fi
done
if "${report}" && begins 13 "report"; then run report "${expdir}"; fi
