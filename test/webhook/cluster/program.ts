// `weir webhook` as a process of its own, so that a test can kill it. Its flags come as JSON.

import process from 'node:process';
import * as z from 'zod';
import { runWebhook } from '../../../cli/webhook.ts';
import { runProgram } from '../../../process/lifecycle.ts';
import { createLogger } from '../../../process/log.ts';

const flags = z
  .object({
    configMap: z.string(),
    listen: z.string(),
    status: z.string(),
    registry: z.string(),
    service: z.string(),
    servicePort: z.string(),
    clusterRole: z.string(),
    secret: z.string(),
    lease: z.string(),
    rewriteTo: z.string(),
    agentPort: z.string(),
    certDir: z.string().exactOptional(),
    fallbackNodeSelector: z.string().exactOptional(),
  })
  .parse(JSON.parse(process.argv[2] ?? ''));

await runProgram((stop) => runWebhook({ ...flags, log: createLogger('info', false), stop }));
