import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.File;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.CopyOnWriteArrayList;
import javax.tools.ToolProvider;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs one program after another in one virtual machine, which is warm from the second on.
 *
 * A request on standard input: the number of strings (int), then each as length (int) and UTF-8: the files and directories to load classes
 * from afresh (":" between), the main class, its arguments; then the length (int) and bytes of what the program finds on its standard
 * input. The answer on standard output: exit status (int), and by length and bytes what it wrote to standard output and to standard error.
 * The class "javac" stands for the compiler.
 */
public final class JavaHost {
    private static final class Exited extends RuntimeException {
        final int status;

        Exited(int status) {
            super("exit " + status, null, false, false);
            this.status = status;
        }
    }

    /** Looks into its own places first: tools keep counts in static fields, and must find them new each time. */
    private static final class Afresh extends URLClassLoader {
        Afresh(URL[] places) {
            super(places, JavaHost.class.getClassLoader());
        }

        @Override
        protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
            synchronized (getClassLoadingLock(name)) {
                Class<?> found = findLoadedClass(name);
                if (found == null && !name.startsWith("java.")) {
                    try {
                        found = findClass(name);
                    } catch (ClassNotFoundException elsewhere) {
                        // the parent has it
                    }
                }
                return found != null ? found : super.loadClass(name, resolve);
            }
        }
    }

    /** Threads that a program left behind may still need a class that was not loaded yet. */
    private static final int LOADERS_OPEN = 4;

    private static final Queue<Afresh> loaders = new ArrayDeque<>();
    private static final List<Runnable> atTheEnd = new CopyOnWriteArrayList<>();
    private static volatile int firstStatus;
    private static volatile Thread running;

    public static void main(String[] none) throws Exception {
        DataInputStream requests = new DataInputStream(new FileInputStream(FileDescriptor.in));
        DataOutputStream answers = new DataOutputStream(new FileOutputStream(FileDescriptor.out));
        Exit.Procedure leave = (status, message) -> {
            if (Thread.currentThread() == running && firstStatus < 0) {
                firstStatus = status;
            }
            throw new Exited(status);
        };
        Exit.setExitProcedure(leave);
        Exit.setHaltProcedure(leave);
        Exit.setShutdownHookAdder((name, hook) -> atTheEnd.add(hook));
        while (true) {
            List<String> strings = new ArrayList<>();
            try {
                for (int left = requests.readInt(); left > 0; left--) {
                    strings.add(new String(bytes(requests), "UTF-8"));
                }
            } catch (EOFException end) {
                Runtime.getRuntime().halt(0); // threads that programs left behind don't keep it
            }
            byte[] given = bytes(requests);
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            ByteArrayOutputStream err = new ByteArrayOutputStream();
            int status = run(strings, new ByteArrayInputStream(given), out, err);
            answers.writeInt(status);
            answers.writeInt(out.size());
            out.writeTo(answers);
            answers.writeInt(err.size());
            err.writeTo(answers);
            answers.flush();
        }
    }

    private static byte[] bytes(DataInputStream from) throws Exception {
        byte[] read = new byte[from.readInt()];
        from.readFully(read);
        return read;
    }

    private static int run(List<String> strings, InputStream in, ByteArrayOutputStream out, ByteArrayOutputStream err) throws Exception {
        String[] arguments = strings.subList(2, strings.size()).toArray(new String[0]);
        if (strings.get(1).equals("javac")) {
            return ToolProvider.getSystemJavaCompiler().run(in, out, err, arguments);
        }
        List<URL> places = new ArrayList<>();
        for (String place : strings.get(0).split(":")) {
            places.add(new File(place).toURI().toURL());
        }
        firstStatus = -1;
        running = Thread.currentThread();
        System.setIn(in);
        System.setOut(new PrintStream(out, true, "UTF-8"));
        System.setErr(new PrintStream(err, true, "UTF-8"));
        Afresh loader = new Afresh(places.toArray(new URL[0]));
        loaders.add(loader);
        if (loaders.size() > LOADERS_OPEN) {
            loaders.remove().close();
        }
        try {
            running.setContextClassLoader(loader);
            loader.loadClass(strings.get(1)).getMethod("main", String[].class).invoke(null, (Object) arguments);
            return Math.max(firstStatus, 0);
        } catch (InvocationTargetException thrown) {
            if (firstStatus >= 0) {
                return firstStatus;
            }
            thrown.getCause().printStackTrace();
            return 1;
        } catch (ReflectiveOperationException wrong) {
            wrong.printStackTrace();
            return 1;
        } finally {
            atTheEnd.forEach(Runnable::run);
            atTheEnd.clear();
            running.setContextClassLoader(JavaHost.class.getClassLoader());
            System.out.flush();
            System.err.flush();
        }
    }
}
