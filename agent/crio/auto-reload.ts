import { join } from 'node:path';
import * as z from 'zod';
import { parseToml } from '../hosts-file.ts';
import type { NodeView } from '../runtimes/node-view.ts';

const MAIN_FILE = '/etc/crio/crio.conf';
const DROP_INS = '/etc/crio/crio.conf.d';

/** Whether CRI-O was told to look at its registries' drop-ins whenever one changes (1.31 and later). */
export async function reloadsByItself(view: NodeView): Promise<boolean> {
  const dropIns = (await view.names(DROP_INS)).map((name) => join(DROP_INS, name));
  let result = false;
  for (const path of [MAIN_FILE, ...dropIns]) result = (await readSetting(view, path)) ?? result;
  return result;
}

/** What cannot be read says nothing: it only helps to judge. */
async function readSetting(view: NodeView, path: string): Promise<boolean | undefined> {
  try {
    const file = await view.file(path);
    return file === undefined
      ? undefined
      : schema.parse(parseToml(file.text)).crio?.image?.auto_reload_registries;
  } catch {
    return undefined;
  }
}

const schema = z.object({
  crio: z
    .object({ image: z.object({ auto_reload_registries: z.boolean().optional() }).optional() })
    .optional(),
});
