// Answers prompts with Transformers.js, from a local package and nothing else.
//
//     node run.mjs PACKAGE DTYPE REQUEST
//
// REQUEST is a JSON file: {"max_new_tokens": N, "questions": [{"messages", "tools", "prompt_ids"}], "batch": BOOLEAN}, and if the
// graph is not called as its type has it, "model_file_name" without the ending.
// Prints {"prompts": [ids...], "answers": [ids...]}: what the package's chat template and tokenizer make of the messages,
// and the greedy answers to `prompt_ids`, one by one or in one batch padded on the left.

import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { AutoModelForCausalLM, AutoTokenizer, Tensor, env } from "@huggingface/transformers";

const [folder, dtype, request] = process.argv.slice(2);
env.allowRemoteModels = false;
// Only messages of the severity "error": each session warns that `num_logits_to_keep` may be overridden, which is intended.
env.backends.onnx.logSeverityLevel = 3;

const { max_new_tokens, model_file_name, questions, batch } = JSON.parse(await readFile(request, "utf8"));
const path = resolve(folder);
const tokenizer = await AutoTokenizer.from_pretrained(path);
const model = await AutoModelForCausalLM.from_pretrained(path, { dtype, device: "cpu", ...(model_file_name && { model_file_name }) });

const prompts = questions.map(({ messages, tools }) =>
  tokenizer.apply_chat_template(messages, { tools, add_generation_prompt: true, tokenize: true, return_tensor: false, return_dict: false }),
);
const ids = questions.map(({ prompt_ids }) => prompt_ids);
const answers = batch ? await generate(ids) : [];
for (const prompt of batch ? [] : ids) {
  answers.push(...(await generate([prompt])));
}
console.log(JSON.stringify({ prompts, answers }));

/** Greedy answers to prompts, padded on the left to the longest one. */
async function generate(prompts) {
  const length = Math.max(...prompts.map((prompt) => prompt.length));
  const padded = (prompt, padding, values) => [...Array(length - prompt.length).fill(padding), ...values];
  const matrix = (rows) => new Tensor("int64", BigInt64Array.from(rows.flat().map(BigInt)), [rows.length, length]);
  const sequences = await model.generate({
    input_ids: matrix(prompts.map((prompt) => padded(prompt, tokenizer.pad_token_id, prompt))),
    attention_mask: matrix(prompts.map((prompt) => padded(prompt, 0n, prompt.map(() => 1n)))),
    max_new_tokens,
    do_sample: false,
    repetition_penalty: 1,
  });
  return sequences.tolist().map((sequence) => sequence.slice(length).map(Number));
}
