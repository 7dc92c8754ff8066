/** Where the journal lies by default: on each system where its administrators look. */

import { describe, expect, it } from 'vitest';
import { type StateFolderSources, stateFolder } from '../../../src/jobs/runs/state-folder.js';

const person: StateFolderSources = {
  platform: 'linux',
  environment: {},
  user: 1000,
  home: '/home/person',
};
const windows: StateFolderSources = {
  platform: 'win32',
  environment: { ProgramData: 'D:\\ProgramData' },
  user: undefined,
  home: 'C:\\Users\\person',
};

describe('the state folder', () => {
  it('is the system-wide one for root and on Windows, and each other user has one of their own', () => {
    expect(stateFolder(undefined, { ...person, user: 0 })).toBe('/var/lib/firn');
    expect(stateFolder(undefined, windows)).toBe('D:\\ProgramData\\Firn');
    expect(stateFolder(undefined, { ...windows, environment: {} })).toBe('C:\\ProgramData\\Firn');
    expect(stateFolder(undefined, person)).toBe('/home/person/.local/state/firn');
  });

  it('follows XDG_STATE_HOME unless that is relative', () => {
    const withState = (state: string) =>
      stateFolder(undefined, { ...person, environment: { XDG_STATE_HOME: state } });
    expect(withState('/state')).toBe('/state/firn');
    expect(withState('state')).toBe('/home/person/.local/state/firn');
  });

  it('is what was given, else what FIRN_STATE says, as an absolute path', () => {
    const environment = { FIRN_STATE: '/elsewhere', XDG_STATE_HOME: '/state' };
    expect(stateFolder('/given', { ...person, environment })).toBe('/given');
    expect(stateFolder('', { ...person, environment })).toBe('/elsewhere');
    expect(stateFolder(undefined, { ...person, environment, user: 0 })).toBe('/elsewhere');
    expect(stateFolder('here', person)).toBe(`${process.cwd()}/here`);
  });
});
