"""POSIX threads (pthreads(7)), and how the threads of this package are started: with every signal blocked, as signals are for the
thread that knows what to do with them."""

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_join(pthread_t thread, void **result)
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_cond_init(pthread_cond_t *cond, void *attributes)
    int pthread_cond_destroy(pthread_cond_t *cond)
    int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
    int pthread_cond_signal(pthread_cond_t *cond)
    int pthread_cond_broadcast(pthread_cond_t *cond)

cdef extern from *:
    """
    #include <pthread.h>
    #include <signal.h>
    static inline int fl_thread_start(pthread_t *thread, void *(*run)(void *), void *argument, const char *name) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int error = pthread_create(thread, 0, run, argument);
        pthread_sigmask(SIG_SETMASK, &before, 0);
        if (error == 0)
            pthread_setname_np(*thread, name);
        return -error;
    }
    """
    # 0 or -errno; name: at most 15 characters
    int thread_start "fl_thread_start"(pthread_t *thread, void *(*run)(void *) noexcept nogil, void *argument,
                                       const char *name) noexcept nogil
