package server

// Directories is how many directories that are being put have places.
func (s *Server) Directories() int { return s.directories.places.Taken() }
