// stdin: {"folder": "…", "name": "deploy", "texts": ["…", …]}; stdout: label and score of every class, for each text.
import { readFileSync } from "node:fs";
import { env, pipeline } from "@huggingface/transformers";

const { folder, name, texts } = JSON.parse(readFileSync(0, "utf8"));
env.allowRemoteModels = false;
env.localModelPath = folder;
const classify = await pipeline("text-classification", name, {
  dtype: "fp32",
  model_file_name: "model",
  subfolder: "",
});
const answers = [];
for (const text of texts) answers.push(await classify(text, { top_k: null }));
console.log(JSON.stringify(answers));
