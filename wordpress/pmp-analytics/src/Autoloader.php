<?php

declare(strict_types=1);

namespace PMP\Analytics;

/**
 * Loads PMP\Analytics\A\B from A/B.php (PSR-4), and the four global classes of the public API from files of the same name.
 */
final class Autoloader
{
    private const PREFIX = __NAMESPACE__ . '\\';

    private const PUBLIC_CLASSES = ['PMP_Analytics_Plugin', 'PMP_API_Client', 'PMP_Config', 'PMP_Event_Queue'];

    public function __construct(private readonly string $folder)
    {
    }

    public function register(): void
    {
        spl_autoload_register($this->load(...));
    }

    private function load(string $class): void
    {
        if (str_starts_with($class, self::PREFIX)) {
            $path = str_replace('\\', '/', substr($class, strlen(self::PREFIX)));
        } elseif (in_array($class, self::PUBLIC_CLASSES, true)) {
            $path = $class;
        } else {
            return;
        }
        $file = "{$this->folder}/{$path}.php";
        if (is_file($file)) {
            require $file;
        }
    }
}
