<?php

declare(strict_types=1);

namespace PMP\Analytics\Privacy;

use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use PMP_API_Client;
use PMP_Config;
use WP_Error;

/**
 * Tools > Export and Erase Personal Data: the mesh's data about a person. The mesh works asynchronously; WordPress calls page by
 * page, and each page but the last reports that it is not done.
 */
final class MeshData implements Registerable
{
    public const ID = 'pmp-analytics-mesh';

    private const ARCHIVE_SECONDS = 60;

    private const MAX_ARCHIVE_BYTES = 32 << 20;

    public function __construct(
        private readonly PMP_API_Client $client,
        private readonly PMP_Config $config,
        private readonly SubjectRequests $requests,
    ) {
    }

    public function register(): void
    {
        Hook::filter('wp_privacy_personal_data_exporters', [$this, 'add_exporter'], 20);
        // After the outbox's own eraser, so that its messages are no longer delivered.
        Hook::filter('wp_privacy_personal_data_erasers', [$this, 'add_eraser'], 20);
    }

    /**
     * @param array<string, array<string, mixed>> $exporters
     * @return array<string, array<string, mixed>>
     */
    public function add_exporter(array $exporters): array
    {
        $name = __('PMP Analytics, the mesh', 'pmp-analytics');
        return $exporters + [self::ID => ['exporter_friendly_name' => $name, 'callback' => [$this, 'export']]];
    }

    /**
     * @param array<string, array<string, mixed>> $erasers
     * @return array<string, array<string, mixed>>
     */
    public function add_eraser(array $erasers): array
    {
        $name = __('PMP Analytics, the mesh', 'pmp-analytics');
        return $erasers + [self::ID => ['eraser_friendly_name' => $name, 'callback' => [$this, 'erase']]];
    }

    /**
     * @return array{data: list<array<string, mixed>>, done: bool}|WP_Error
     */
    public function export(string $email, int $page = 1): array|WP_Error
    {
        if (! $this->config->is_complete()) {
            return ['data' => [], 'done' => true];
        }
        $progress = $this->requests->export($email, $page);
        if ($progress->problem !== '') {
            return $this->not_exported($progress->problem);
        }
        if (! $progress->is_done) {
            $late = __('It is still in progress; please try again later.', 'pmp-analytics');
            return $progress->is_late ? $this->not_exported($late) : ['data' => [], 'done' => false];
        }
        $archive = new Archive();
        foreach ($progress->requests as $request) {
            $path = (string) ($request['download']['path'] ?? '');
            $reply = $this->client->call('GET', $path, '', self::ARCHIVE_SECONDS, self::MAX_ARCHIVE_BYTES);
            // Only a complete archive ends with this.
            if ($reply->status !== 200 || ($reply->body['complete'] ?? false) !== true) {
                return $this->not_exported($reply->reason());
            }
            $archive->add($reply->body);
        }
        return ['data' => $archive->items(), 'done' => true];
    }

    /**
     * @return array{items_removed: bool, items_retained: bool, messages: list<string>, done: bool}
     */
    public function erase(string $email, int $page = 1): array
    {
        if (! $this->config->is_complete()) {
            return $this->erased(removed: false, retained: false, messages: []);
        }
        $progress = $this->requests->erase($email, $page);
        if ($progress->problem !== '') {
            /* translators: %s: what went wrong. */
            $text = __('PMP Analytics: the erasure could not be requested from the mesh. Please try again. %s', 'pmp-analytics');
            return $this->erased(removed: false, retained: true, messages: [sprintf($text, $progress->problem)]);
        }
        if ($progress->is_done) {
            /* translators: %s: ids of requests. */
            $text = __('PMP Analytics: the mesh has erased this person (%s).', 'pmp-analytics');
            return $this->erased(removed: $progress->rows() > 0, retained: false, messages: [sprintf($text, $progress->ids())]);
        }
        if ($progress->is_late) {
            /* translators: %s: ids of requests. */
            $text = __('PMP Analytics: the mesh is still erasing this person and will continue automatically (%s).', 'pmp-analytics');
            return $this->erased(removed: false, retained: true, messages: [sprintf($text, $progress->ids())]);
        }
        return ['done' => false] + $this->erased(removed: false, retained: false, messages: []);
    }

    private function not_exported(string $reason): WP_Error
    {
        /* translators: %s: what went wrong. */
        $text = __('PMP Analytics: the mesh could not export its data about this person. %s', 'pmp-analytics');
        return new WP_Error('pmp_not_exported', sprintf($text, $reason));
    }

    /**
     * @param list<string> $messages
     * @return array{items_removed: bool, items_retained: bool, messages: list<string>, done: bool}
     */
    private function erased(bool $removed, bool $retained, array $messages): array
    {
        return ['items_removed' => $removed, 'items_retained' => $retained, 'messages' => $messages, 'done' => true];
    }
}
