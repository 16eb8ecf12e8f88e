package e2e

import "testing"

// bodies run against a network of either shape. They share it, each with a user of its own.
func bodies() map[string]func(*testing.T, *scene) {
	return map[string]func(*testing.T, *scene){
		"JobRuns": jobRuns, "ProgramFails": programFails, "ImageMissing": imageMissing,
		"ImageDamaged": imageDamaged, "AboveCap": aboveCap, "Cancelled": cancelled, "Inputs": inputs,
		"Strangers": strangersAreRefused, "EscrowOfAnother": escrowOfAnother, "Tokens": tokens,
		"ForgedEvents": forgedEvents, "OneTrace": oneTrace,
		"CommandLine": commandLine, "ClientDisappears": clientDisappears, "Detached": detached,
		"ArrayByCommand": arrayByCommand, "HoldbackByCommand": holdbackByCommand,
		"ReplicasByCommand": replicasByCommand,
		"FoldersByCommand":  foldersByCommand, "EvictedByCommand": evictedByCommand,
		"MovedByCommand": movedByCommand,
	}
}

func TestAllInOne(t *testing.T) {
	t.Parallel()
	runBodies(t, allInOne(t))
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	runBodies(t, processes(t))
}

func runBodies(t *testing.T, s *scene) {
	t.Run("bodies", func(t *testing.T) {
		for name, body := range bodies() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				body(t, s)
			})
		}
	})
	supplyIsConserved(t, s)
}
