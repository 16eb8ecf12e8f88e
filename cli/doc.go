// Package cli has the client commands of the ucn program: wallets, transfers, jobs, files, images,
// transactions and their proofs, tokens, and doctor.
//
// Commands are thin: they read flags, open a session with a network, call the package that does the
// work and print its result, for people or with --json for programs. The same command always gives
// the same field names; ids are bech32 or hexadecimal text, amounts text in UCN.
//
// Exit codes: 0 done, 1 failed, 2 called wrongly, 3 the job ended other than completed, 4 no
// network can be reached, 130 interrupted twice.
package cli
