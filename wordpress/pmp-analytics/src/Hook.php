<?php

declare(strict_types=1);

namespace PMP\Analytics;

use Closure;
use PMP\Analytics\Capture\Guard;
use Throwable;

/**
 * A callback for a WordPress hook. All are added here, so that none can break a page: other plugins fire hooks with arguments of
 * unexpected types, for which PHP throws an error that nothing would catch.
 */
final class Hook
{
    private function __construct(private readonly Closure $callback)
    {
    }

    /**
     * @param callable $callback An argument of a type that it does not declare is logged and ignored.
     */
    public static function action(string $name, callable $callback, int $priority = 10, int $arguments = 1): void
    {
        add_action($name, new self($callback(...)), $priority, $arguments);
    }

    /**
     * @param callable $callback Returns the filtered value; if it fails, the value stays unchanged.
     */
    public static function filter(string $name, callable $callback, int $priority = 10, int $arguments = 1): void
    {
        add_filter($name, new self($callback(...)), $priority, $arguments);
    }

    public function __invoke(mixed ...$arguments): mixed
    {
        try {
            // Like WordPress itself, without strict types: a numeric string is accepted as a number.
            return call_user_func_array($this->callback, $arguments);
        } catch (Throwable $error) {
            Guard::report($error);
            return $arguments[0] ?? null;
        }
    }
}
