// stdin: {"model": "…/model.onnx", "rows": [{"input_ids": [1, 2], …}, …]}; stdout: the logits of each row.
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-node";

const { model, rows } = JSON.parse(readFileSync(0, "utf8"));
const session = await ort.InferenceSession.create(model);
const answers = [];
for (const row of rows) {
  const inputs = {};
  for (const name of session.inputNames) {
    const values = BigInt64Array.from(row[name], BigInt);
    inputs[name] = new ort.Tensor("int64", values, [1, values.length]);
  }
  const outputs = await session.run(inputs);
  answers.push(Array.from(outputs[session.outputNames[0]].data));
}
console.log(JSON.stringify(answers));
