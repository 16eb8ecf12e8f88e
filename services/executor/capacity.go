package executor

import "fmt"

// fits tells whether need is free where used of total is taken.
func fits(need, used, total Resources) bool {
	f := free(used, total)
	return need.CPUMilli <= f.CPUMilli && need.Memory <= f.Memory && need.Disk <= f.Disk &&
		need.Network <= f.Network
}

func free(used, total Resources) Resources { return minus(total, used) }

func plus(a, b Resources) Resources {
	return Resources{
		CPUMilli: uint32(min(uint64(a.CPUMilli)+uint64(b.CPUMilli), 1<<32-1)),
		Memory:   add(a.Memory, b.Memory), Disk: add(a.Disk, b.Disk), Network: add(a.Network, b.Network),
	}
}

func minus(a, b Resources) Resources {
	return Resources{
		CPUMilli: a.CPUMilli - min(a.CPUMilli, b.CPUMilli), Memory: a.Memory - min(a.Memory, b.Memory),
		Disk: a.Disk - min(a.Disk, b.Disk), Network: a.Network - min(a.Network, b.Network),
	}
}

func describe(r Resources) string {
	return fmt.Sprintf("%d.%03d cores, %d MiB memory, %d MiB disk", r.CPUMilli/1000,
		r.CPUMilli%1000, r.Memory>>20, r.Disk>>20)
}
