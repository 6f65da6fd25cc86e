import { after } from 'node:test';
import { storeContract } from '../registry/store-contract.ts';
import { makeScratch, removeScratch } from '../tools/scratch.ts';
import { openS3Store } from './opened-store.ts';
import { startS3Server } from './s3-server.ts';
import { s3ServerNames } from './s3-server-tools.ts';

const scratch = await makeScratch();
const servers = await Promise.all(s3ServerNames.map((name) => startS3Server(name, { scratch })));
after(async () => {
  for (const server of servers) await server.stop();
  await removeScratch(scratch);
});

for (const { name, endpoint } of servers)
  storeContract(`the S3 store on ${name}`, () => openS3Store({ scratch, endpoint }));
