package scheduler

// maxStatuses bounds the bytes of hosts' statuses in a job's record, which every change of the job
// writes anew. Each lane has an equal part of it, so that no host takes room from another lane's.
const maxStatuses = 1 << 20

// forgetStatuses keeps what hosts said of a job within maxStatuses: of each lane what was said of
// its newest attempts. One status that is larger than the lane's part is not kept.
func (j *Job) forgetStatuses() {
	part := maxStatuses / max(len(j.Runs), 1)
	for i := range j.Runs {
		room, attempts := part, j.Runs[i].Attempts
		for k := len(attempts) - 1; k >= 0; k-- {
			if a := &attempts[k]; len(a.Status) > room {
				a.Status = nil
			} else {
				room -= len(a.Status)
			}
		}
	}
}
