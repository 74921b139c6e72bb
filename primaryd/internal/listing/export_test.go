package listing

// Waiting counts the callers that wait for walks.
func Waiting(l *Lister) (callers int) {
	l.shared.mu.Lock()
	defer l.shared.mu.Unlock()
	for _, w := range l.shared.walks {
		callers += w.callers
	}
	return callers
}
