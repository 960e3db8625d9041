<?php

declare(strict_types=1);

namespace PMP\Analytics\Delivery;

use Closure;
use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use PMP_Event_Queue;

/**
 * Delivers what a request recorded, or what is overdue, when its visitor has the whole answer: also where no browser may tell
 * anything, and so none asks for overdue messages. Where the server can't end a response before the request, nothing is
 * delivered here: somebody would wait.
 */
final class AfterResponse implements Registerable
{
    private const SECONDS = 10.0;

    /**
     * @param Closure(): bool|null $finish Ends the response; null where that can't be done.
     */
    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly Drainer $drainer,
        private readonly Overdue $overdue,
        private readonly ?Closure $finish,
    ) {
    }

    public function register(): void
    {
        if ($this->finish !== null) {
            // Last of all: whatever else runs on shutdown may still have something to say to the visitor.
            Hook::action('shutdown', [$this, 'deliver'], PHP_INT_MAX);
        }
    }

    public function deliver(): void
    {
        if ($this->finish === null || $this->queue->recorded() === [] && ! $this->overdue->is_on()) {
            return;
        }
        if (session_status() === PHP_SESSION_ACTIVE) {
            // Or the visitor's next request waits for this one's session.
            session_write_close();
        }
        ignore_user_abort(true);
        if (($this->finish)()) {
            $this->drainer->drain(self::SECONDS);
        }
    }

    /**
     * How this server ends a response early: PHP-FPM and LiteSpeed can.
     *
     * @return Closure(): bool|null
     */
    public static function way_to_finish(): ?Closure
    {
        return match (true) {
            function_exists('fastcgi_finish_request') => static fn (): bool => fastcgi_finish_request(),
            function_exists('litespeed_finish_request') => static fn (): bool => (bool) litespeed_finish_request(),
            default => null,
        };
    }
}
