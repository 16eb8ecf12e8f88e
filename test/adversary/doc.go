// Package adversary plays those who cheat against the rules that are to stop them: hosts that lie
// or run nothing, schedulers that lease to friends, owners that end and withdraw, and whoever
// repeats what others signed. Each attack is a test that says what the attacker gained, in
// grains, and the bound it must stay under; `make adversaries` prints the table.
//
// Most are judged by the real state machine (chain/state), which recounts every sum after every
// block, and by the owner's real client (cli/ack). Those of services_test.go are played by the real
// services: a ledger behind its gRPC service, the executor's agent with its client of that ledger,
// and the owner's checks; only the engine of containers is in memory. Gained counts money alone
// that moved to the attacker or stayed with it against what was earned; fees that it paid are left
// out.
//
// Where nobody cheats, refund_test.go plays each way in which a run ends, with the real scheduler
// too: what its owner paid, what its host got, and that the rest came back.
package adversary
