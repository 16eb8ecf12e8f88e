package server

// Directories is how many directories are being put.
func (s *Server) Directories() int { return s.directories.Taken() }
