import { ContainerdClient } from './containerd-client.ts';
import { Expectations, type FaultRow } from './fault-row.ts';
import { Scene } from './scene.ts';
import type { UpstreamProcess } from './upstream-process.ts';
import { HOST } from './weir-process.ts';

/** What an answer may take where the upstream says at once that it cannot. */
const PROMPT_MS = 50;

interface Trouble {
  readonly name: string;
  /** Nobody knows of an upstream that is silent before its time is over. */
  readonly isSilent?: true;
  readonly begin: (upstream: UpstreamProcess) => Promise<void>;
}

const TROUBLES: readonly Trouble[] = [
  { name: 'refuses', begin: (upstream) => upstream.refuse() },
  { name: 'answers 429', begin: (upstream) => upstream.setFault({ kind: 'status', status: 429 }) },
  { name: 'answers 500', begin: (upstream) => upstream.setFault({ kind: 'status', status: 500 }) },
  { name: 'never answers', isSilent: true, begin: (upstream) => upstream.setFault({ kind: 'silence' }) },
];

/** A tag that is known and has to be confirmed, while the upstream cannot. */
export async function runStaleTags(): Promise<FaultRow[]> {
  const rows: FaultRow[] = [];
  for (const trouble of TROUBLES) rows.push(await runTrouble(trouble));
  return rows;
}

async function runTrouble({ name, isSilent, begin }: Trouble): Promise<FaultRow> {
  await using scene = await Scene.open();
  const weir = await scene.startWeir({ tagTtl: '0s' });
  const { repository } = await scene.upstream.push([1_000]);
  const client = new ContainerdClient({ origin: weir.url, ns: HOST });
  const ask = async () => {
    const began = performance.now();
    const answer = await client.manifest(repository, 'latest', 'HEAD');
    // RFC 9211: a hit whose time to live is over.
    const isOverdue = /hit; ttl=-\d+/.test(answer.headers.get('cache-status') ?? '');
    const ms = answer.endedAt - began;
    const text = `${answer.status}${isOverdue ? ', overdue' : ''}, ${ms.toFixed(1)} ms`;
    return { isOk: answer.status === 200 && isOverdue, ms, text };
  };
  await client.manifest(repository, 'latest');
  await begin(scene.upstream);
  const first = await ask();
  const second = await ask();
  client.close();
  const expectations = new Expectations();
  expectations.that(first.isOk && second.isOk, 'the known tag is served, marked as overdue');
  const isPrompt = Math.max(first.ms, second.ms) < PROMPT_MS;
  expectations.that(isSilent === true || isPrompt, `it is served within ${PROMPT_MS} ms`);
  return {
    fault: `known tag, upstream ${name}`,
    client: first.text,
    store: '',
    next: second.text,
    wrong: expectations.wrong,
  };
}
